package e2e_test

import (
	"flag"
	"os/exec"
	"path/filepath"
	"testing"
)

var languagePictures = flag.String("language-pictures", "", "write pictures of the page in each language to this `folder`")

// TestPageWords compares the tables of the page's words with each other and
// with index.html.
func TestPageWords(t *testing.T) {
	t.Parallel()
	runNode(t, "words.mjs")
}

// TestPageDigest compares the page's SHA-256 with another.
func TestPageDigest(t *testing.T) {
	t.Parallel()
	runNode(t, "sha256.mjs")
}

// TestPageRates measures speeds as the page does.
func TestPageRates(t *testing.T) {
	t.Parallel()
	runNode(t, "rates.mjs")
}

// TestPageLanguages sees uploads in every state in each language.
func TestPageLanguages(t *testing.T) {
	t.Parallel()
	inBrowsers(t, pageLanguages)
}

func pageLanguages(t *testing.T, browser string) {
	gw, files, _ := inAllStates(t)
	type language struct {
		Language  string `json:"language"`
		Locale    string `json:"locale"` // which the browser asks for
		Direction string `json:"direction"`
	}
	browseIn(t, browser, "languages", gw, map[string]any{
		"files": files, "half": files["receiving"], "screenshots": *languagePictures,
		"languages": []language{
			{"en", "en-GB", "ltr"}, {"de", "de-CH", "ltr"}, {"fr", "fr-CA", "ltr"}, {"es", "es", "ltr"},
			{"he", "he-IL", "rtl"}, {"ar", "ar", "rtl"}, {"ja", "ja-JP", "ltr"}, {"zh", "zh-CN", "ltr"},
		},
	}, nil)
}

// TestPagePseudoLanguage looks for text that is in no table.
func TestPagePseudoLanguage(t *testing.T) {
	t.Parallel()
	gw, files, _ := inAllStates(t)
	browse(t, "pseudo", gw, map[string]any{"half": files["receiving"]})
}

// runNode runs a script of testdata, which fails if something is not as it
// should be.
func runNode(t *testing.T, script string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "node", append([]string{filepath.Join("testdata", script)}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}
