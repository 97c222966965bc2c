package gateway

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// kindUnknown says that a request has a parameter that there is not: what was meant
// by it would be lost without a word, as a destination whose name is misspelt.
var kindUnknown = problemKind{"unknown-parameter", http.StatusBadRequest, "There is no such parameter"}

// The parameters of addresses, as the handlers' annotations have them. What is under
// /uploads, /events and /destinations takes those of its own and no others; the pages,
// their files and the probes look at none, as others add some to them: monitors,
// browsers, whoever shares a link.
var (
	sendParameters = []string{"name", "label", "destination", "mode", "mtime"}
	putParameters  = []string{"label", "destination", "mode", "mtime"}
	listParameters = []string{"state", "name", "label", "destination", "sha256", "since", "until", "limit", "cursor", "before"}
	showParameters = []string{"wait"}
)

// taking has a handler see only requests whose address has no other parameters than
// these. A request with one is refused before anything else is done with it.
func taking(parameters []string, next handler) handler {
	return func(x *exchange, r *http.Request) error {
		if err := checkParameters(r, parameters); err != nil {
			return err
		}
		return next(x, r)
	}
}

func checkParameters(r *http.Request, taken []string) error {
	if areAmong(r.URL.RawQuery, taken) {
		return nil
	}
	_, unreadable := query(r)
	if unreadable != nil && len(taken) > 0 {
		return unreadable
	}
	for part := range strings.SplitSeq(r.URL.RawQuery, "&") {
		escaped, _, _ := strings.Cut(part, "=")
		name, err := url.QueryUnescape(escaped)
		if err != nil {
			name = escaped
		}
		switch {
		case part == "" || slices.Contains(taken, name):
		case name == "name" && r.Method == http.MethodPut: // see pathName
		default:
			return unknownParameter(name, taken)
		}
	}
	return nil
}

// areAmong is true if a query has nothing but these parameters, written as they are:
// nearly every request's.
func areAmong(query string, taken []string) bool {
	for query != "" {
		var part string
		part, query, _ = strings.Cut(query, "&")
		name, _, _ := strings.Cut(part, "=")
		if !slices.Contains(taken, name) {
			return false
		}
	}
	return true
}

// repeated is the first of these parameters that is given more than once, "" if there is
// none: which of its values was meant is not known.
func repeated(q url.Values, parameters ...string) string {
	for _, name := range parameters {
		if len(q[name]) > 1 {
			return name
		}
	}
	return ""
}

func unknownParameter(name string, taken []string) error {
	if len(taken) == 0 {
		return refusal(kindUnknown, "There is no parameter %.60q here, nor any other. Nothing was done. Leave it out.", name)
	}
	there := "There is " + taken[0]
	if last := len(taken) - 1; last > 0 {
		there = "There are " + strings.Join(taken[:last], ", ") + " and " + taken[last]
	}
	if near := nearest(name, taken); near != "" {
		return refusal(kindUnknown, "There is no parameter %.60q here; perhaps %s was meant. Nothing was done. %s.", name, near, there)
	}
	return refusal(kindUnknown, "There is no parameter %.60q here. Nothing was done. %s.", name, there)
}

// nearest is which of the known somebody may have meant, "" if that is none: one that
// was misspelt, or shortened, or has more around it.
func nearest(given string, known []string) string {
	if near := misspelt(given, known); near != "" {
		return near
	}
	given = strings.ToLower(given)
	best, most := "", 2
	for _, k := range known {
		if shared := min(len(given), len(k)); shared > most && (strings.Contains(k, given) || strings.Contains(given, k)) {
			best, most = k, shared
		}
	}
	return best
}

// misspelt is which of the known is given but for its case and a letter or, of six
// and more, two: "" if that is none.
func misspelt(given string, known []string) string {
	best, least := "", 3
	for _, k := range known {
		most := 1
		if len(k) > 5 {
			most = 2
		}
		if len(given) > len(k)+most {
			continue
		}
		if d := typos(strings.ToLower(given), k); d <= most && d < least {
			best, least = k, d
		}
	}
	return best
}

// typos is how many letters have to be put in, left out, changed, or swapped with the
// next one to make b of a: https://en.wikipedia.org/wiki/Damerau-Levenshtein_distance,
// the optimal string alignment.
func typos(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before, last, row = last, row, before
		row[0] = i + 1
		for j := range len(b) {
			changed := last[j]
			if a[i] != b[j] {
				changed++
			}
			row[j+1] = min(changed, last[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
	}
	return row[len(b)]
}
