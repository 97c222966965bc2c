package main

import (
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A ciSystem says where a CI system keeps what is worth a label. Only the
// variables that are named here are read: others may hold secrets.
type ciSystem struct {
	name                         string
	present                      string // a variable that it alone sets
	repository, commit, job, run []string
}

var ciSystems = []ciSystem{
	{"github", "GITHUB_ACTIONS", []string{"$GITHUB_REPOSITORY"}, []string{"$GITHUB_SHA"}, []string{"$GITHUB_JOB"},
		[]string{"$GITHUB_SERVER_URL", "/", "$GITHUB_REPOSITORY", "/actions/runs/", "$GITHUB_RUN_ID"}},
	{"gitlab", "GITLAB_CI", []string{"$CI_PROJECT_PATH"}, []string{"$CI_COMMIT_SHA"}, []string{"$CI_JOB_NAME"}, []string{"$CI_JOB_URL"}},
	{"buildkite", "BUILDKITE", []string{"$BUILDKITE_REPO"}, []string{"$BUILDKITE_COMMIT"}, []string{"$BUILDKITE_STEP_KEY"}, []string{"$BUILDKITE_BUILD_URL"}},
	{"jenkins", "JENKINS_URL", []string{"$GIT_URL"}, []string{"$GIT_COMMIT"}, []string{"$JOB_NAME"}, []string{"$BUILD_URL"}},
}

// maxLabels is how many labels the gateway takes.
const maxLabels = 16

// maxCIValue is the longest value of a label that the gateway takes, in
// characters. It takes printable ones alone.
const maxCIValue = 256

func isLabelValue(value string) bool {
	return value != "" && utf8.ValidString(value) && utf8.RuneCountInString(value) <= maxCIValue &&
		!strings.ContainsFunc(value, func(r rune) bool { return !unicode.IsPrint(r) })
}

// ciLabels are the labels that say which run of a pipeline sends: none outside
// of one.
func ciLabels(environ []string) []string {
	env := map[string]string{}
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		env[name] = value
	}
	for _, ci := range ciSystems {
		if env[ci.present] == "" {
			continue
		}
		labels := []string{"ci=" + ci.name}
		for _, l := range []struct {
			key  string
			from []string
		}{{"repository", ci.repository}, {"commit", ci.commit}, {"job", ci.job}, {"run", ci.run}} {
			if value := withoutSecrets(expand(l.from, env)); isLabelValue(value) {
				labels = append(labels, "ci-"+l.key+"="+value)
			}
		}
		return labels
	}
	return nil
}

// expand puts variables in the place of the parts that begin with $; without
// one of them there is nothing.
func expand(parts []string, env map[string]string) string {
	var b strings.Builder
	for _, p := range parts {
		if name, isVariable := strings.CutPrefix(p, "$"); isVariable {
			if p = env[name]; p == "" {
				return ""
			}
		}
		b.WriteString(p)
	}
	return b.String()
}

// withoutSecrets takes away of an address what may let somebody in: the user
// and password before the host, the query and the fragment. What has an @ and
// cannot be read as an address is left out but for what follows.
func withoutSecrets(value string) string {
	u, err := url.Parse(value)
	if err == nil && u.Host != "" {
		u.User, u.RawQuery, u.Fragment = nil, "", ""
		return u.String()
	}
	return value[strings.LastIndex(value, "@")+1:]
}
