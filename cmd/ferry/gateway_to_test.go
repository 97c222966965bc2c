package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestDestinationFlags reads what people write, also several in one value, as the
// environment has them.
func TestDestinationFlags(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a token")
	if err := os.WriteFile(path, []byte("ferry-join-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const one, two = "v3://one:1256", "v3://two:1256?window=8"
	for name, c := range map[string]struct {
		f    destinationFlags
		want string // name, URL, token and deliveries of each; or what the error says
	}{
		"one":                   {destinationFlags{to: []string{one}}, "default v3://one:1256  0"},
		"one with a name":       {destinationFlags{to: []string{"a=" + one}}, "a v3://one:1256  0"},
		"two":                   {destinationFlags{to: []string{one, "b=" + two}}, "default v3://one:1256  0, b v3://two:1256?window=8  0"},
		"two in one value":      {destinationFlags{to: []string{" a=" + one + "  b=" + two}}, "a v3://one:1256  0, b v3://two:1256?window=8  0"},
		"token":                 {destinationFlags{to: []string{one}, join: []string{"ferry-join-a"}}, "default v3://one:1256 ferry-join-a 0"},
		"token of the only one": {destinationFlags{to: []string{"a=" + one}, join: []string{"ferry-join-a"}}, "a v3://one:1256 ferry-join-a 0"},
		"token in a file":       {destinationFlags{to: []string{"a=" + one, two}, join: []string{"a=@" + path}}, "a v3://one:1256 ferry-join-file 0, default v3://two:1256?window=8  0"},
		"tokens in one value":   {destinationFlags{to: []string{"a=" + one, "b=" + two}, join: []string{"b=ferry-join-b a=ferry-join-a"}}, "a v3://one:1256 ferry-join-a 0, b v3://two:1256?window=8 ferry-join-b 0"},
		"deliveries":            {destinationFlags{to: []string{one, "b=" + two}, deliveries: []string{"b=3"}}, "default v3://one:1256  0, b v3://two:1256?window=8  3"},

		"none":                {destinationFlags{}, "--to is missing"},
		"name":                {destinationFlags{to: []string{"A=" + one}}, `"A" is no name of a destination`},
		"URL":                 {destinationFlags{to: []string{"a=http://x"}}, `scheme "http"`},
		"same name":           {destinationFlags{to: []string{one, two}}, "two destinations are called default"},
		"same server":         {destinationFlags{to: []string{"a=" + one, "b=" + one + "?window=2"}}, "the destinations a and b are the same server, one:1256"},
		"token for which":     {destinationFlags{to: []string{"a=" + one, "b=" + two}, join: []string{"ferry-join-a"}}, "want NAME=TOKEN"},
		"token for none":      {destinationFlags{to: []string{"a=" + one}, join: []string{"b=ferry-join-a"}}, "no --to has the name b"},
		"two tokens":          {destinationFlags{to: []string{one}, join: []string{"ferry-join-a", "default=ferry-join-b"}}, "there are two tokens for default"},
		"no token":            {destinationFlags{to: []string{one}, join: []string{"secret"}}, "that is no join token"},
		"deliveries for none": {destinationFlags{to: []string{one}, deliveries: []string{"b=3"}}, "no --to has the name b"},
		"no deliveries":       {destinationFlags{to: []string{one}, deliveries: []string{"default=0"}}, "--deliveries default=0: want NAME=N"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := c.f.read(&program{environ: []string{"HOME=" + t.TempDir()}}, 0)
			if err != nil {
				if !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "secret") {
					t.Errorf("%v; want %q in it", err, c.want)
				}
				return
			}
			var all []string
			for _, d := range got {
				all = append(all, strings.Join([]string{d.Name, d.To.String(), d.Join, string(rune('0' + d.Deliveries))}, " "))
			}
			if got := strings.Join(all, ", "); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}
