package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestCILabelsGiveWay lets those of the command line go before: what a CI system
// says never makes a push fail.
func TestCILabelsGiveWay(t *testing.T) {
	ci := ciLabels([]string{"GITLAB_CI=true", "CI_COMMIT_SHA=4f0c", "CI_JOB_NAME=build"})
	fourteen := make([]string, 14)
	for i := range fourteen {
		fourteen[i] = fmt.Sprintf("k%d=v", i)
	}
	for _, c := range []struct {
		name         string
		labels, want []string
	}{
		{"none given", nil, []string{"ci=gitlab", "ci-commit=4f0c", "ci-job=build"}},
		{"the same key", []string{"ci-commit=mine"}, []string{"ci-commit=mine", "ci=gitlab", "ci-job=build"}},
		{"too many", fourteen, slices.Concat(fourteen, []string{"ci=gitlab", "ci-commit=4f0c"})},
	} {
		if d := cmp.Diff(c.want, withRoom(c.labels, ci)); d != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, d)
		}
	}
}

// TestCILabels takes of each system's environment what is worth a label, and
// nothing that lets somebody in.
func TestCILabels(t *testing.T) {
	secrets := []string{"GITHUB_TOKEN=s3cret", "CI_JOB_TOKEN=s3cret", "BUILDKITE_AGENT_ACCESS_TOKEN=s3cret", "PASSWORD=s3cret",
		"CI_REPOSITORY_URL=https://gitlab-ci-token:s3cret@gitlab.example.org/group/app.git"}
	for _, c := range []struct {
		name    string
		environ []string
		want    []string
	}{
		{"none", nil, nil},
		{"github", []string{"GITHUB_ACTIONS=true", "GITHUB_REPOSITORY=me/app", "GITHUB_SHA=4f0c", "GITHUB_JOB=build", "GITHUB_SERVER_URL=https://github.com", "GITHUB_RUN_ID=17"},
			[]string{"ci=github", "ci-repository=me/app", "ci-commit=4f0c", "ci-job=build", "ci-run=https://github.com/me/app/actions/runs/17"}},
		{"github with half of it", []string{"GITHUB_ACTIONS=true", "GITHUB_REPOSITORY=me/app", "GITHUB_SERVER_URL=https://github.com"},
			[]string{"ci=github", "ci-repository=me/app"}},
		{"gitlab", []string{"GITLAB_CI=true", "CI_PROJECT_PATH=group/app", "CI_COMMIT_SHA=4f0c", "CI_JOB_NAME=build: [linux]", "CI_JOB_URL=https://gitlab.example.org/group/app/-/jobs/9"},
			[]string{"ci=gitlab", "ci-repository=group/app", "ci-commit=4f0c", "ci-job=build: [linux]", "ci-run=https://gitlab.example.org/group/app/-/jobs/9"}},
		{"jenkins", []string{"JENKINS_URL=https://ci.example.org/", "GIT_URL=https://me:s3cret@git.example.org/app.git?token=s3cret#s3cret", "GIT_COMMIT=4f0c", "JOB_NAME=app/main", "BUILD_URL=https://ci.example.org/job/app/7/"},
			[]string{"ci=jenkins", "ci-repository=https://git.example.org/app.git", "ci-commit=4f0c", "ci-job=app/main", "ci-run=https://ci.example.org/job/app/7/"}},
		{"buildkite", []string{"BUILDKITE=true", "BUILDKITE_REPO=s3cret@github.com:me/app.git", "BUILDKITE_COMMIT=4f0c", "BUILDKITE_STEP_KEY=build", "BUILDKITE_BUILD_URL=https://buildkite.com/me/app/builds/3"},
			[]string{"ci=buildkite", "ci-repository=github.com:me/app.git", "ci-commit=4f0c", "ci-job=build", "ci-run=https://buildkite.com/me/app/builds/3"}},
		{"names with an @", []string{"JENKINS_URL=https://ci.example.org/", "GIT_COMMIT=v1@4f0c", "JOB_NAME=team/app@main"},
			[]string{"ci=jenkins", "ci-commit=v1@4f0c", "ci-job=team/app@main"}},
		{"a job's name with an @", []string{"GITLAB_CI=1", "CI_JOB_NAME=deploy@prod"}, []string{"ci=gitlab", "ci-job=deploy@prod"}},
		{"a job's name that is an address", []string{"GITLAB_CI=1", "CI_JOB_NAME=https://me:s3cret@git.example.org/app?token=s3cret"},
			[]string{"ci=gitlab", "ci-job=https://git.example.org/app"}},
		{"a job's name with an address", []string{"GITLAB_CI=1", "CI_JOB_NAME=clone https://me:s3cret@git.example.org/app"},
			[]string{"ci=gitlab", "ci-job=git.example.org/app"}},
		{"what is no label", []string{"GITLAB_CI=true", "CI_COMMIT_SHA=a\nb", "CI_JOB_NAME=" + strings.Repeat("x", 257)}, []string{"ci=gitlab"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := ciLabels(append(secrets, c.environ...))
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			if strings.Contains(strings.Join(got, " "), "s3cret") {
				t.Errorf("%q has a secret", got)
			}
		})
	}
}
