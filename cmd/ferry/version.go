package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// buildVersion says which program this is.
type buildVersion struct {
	number string // as the module's, "devel" where it was built without one
	commit string // "unknown" where it was built without one
}

// version reads what the Go command recorded in the program.
func version() buildVersion {
	v := buildVersion{number: "devel", commit: "unknown"}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	if info.Main.Version != "" && info.Main.Version != "(devel)" {
		v.number = info.Main.Version
	}
	changed := ""
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.commit = s.Value
		case "vcs.modified":
			if s.Value == "true" {
				changed = " with changes"
			}
		}
	}
	v.commit += changed
	return v
}

func (p *program) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print version, commit and Go version",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			p.started = true
			v := version()
			_, err := fmt.Fprintf(p.stdout, "ferry %s, commit %s, %s %s/%s\n", v.number, v.commit, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}
