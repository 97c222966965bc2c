package main

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"ferry/gateway"
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

// checkLabels holds the labels of a command line to the gateway's rule.
func checkLabels(labels []string) error {
	if err := gateway.CheckLabels(labels); err != nil {
		return fmt.Errorf("--label: %w", err)
	}
	return nil
}

// withRoom returns the labels and those of more that an upload can have beside
// them: a key that labels have is theirs, and what would be too many is left away.
func withRoom(labels, more []string) []string {
	all := slices.Clone(labels)
	for _, l := range more {
		if gateway.CheckLabels(append(all, l)) == nil {
			all = append(all, l)
		}
	}
	return all
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
			key     string
			from    []string
			address bool // of which a part may be secret; an @ in other names is part of them
		}{{"repository", ci.repository, true}, {"commit", ci.commit, false}, {"job", ci.job, false}, {"run", ci.run, true}} {
			value := expand(l.from, env)
			if l.address || strings.Contains(value, "://") {
				value = withoutSecrets(value)
			}
			if value != "" {
				labels = append(labels, "ci-"+l.key+"="+value)
			}
		}
		return withRoom(nil, labels)
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
