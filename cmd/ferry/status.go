package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

// maxStatus is the most uploads that the gateway lists at once.
const maxStatus = 500

func (p *program) statusCommand() *cobra.Command {
	r := &remote{}
	var limit int
	var labels []string
	cmd := &cobra.Command{
		Use:   "status [flags] [ID...]",
		Short: "Show the uploads of a gateway",
		Long: `Show how uploads stand: those that are named in full, or the newest ones of the
gateway as a table. One that is named and was tried more than once is shown with
its attempts; in JSON, each that is named has them as "attempt_list". The status is
0 whatever state they are in: "ferry watch" ends as they do.`,
		Example: `  ferry status
  ferry status --label ci-commit=4f0c2a1 --limit 100
  ferry status 01K62Q3V7N5CW0M8DJ4RXEBZ9T --json`,
	}
	cmd.Flags().IntVar(&limit, "limit", 20, "the newest `N`")
	cmd.Flags().StringArrayVar(&labels, "label", nil, "only those that are marked with `KEY=VALUE`; can be repeated")
	return p.remoteCommand(cmd, r, func(ctx context.Context, g *gatewayClient, ids []string) error {
		if limit < 1 || limit > maxStatus {
			return usagef("--limit %d: want 1 to %d", limit, maxStatus)
		}
		if err := checkLabels(labels); err != nil {
			return usageError{err}
		}
		if len(ids) == 0 {
			return p.listUploads(ctx, g, r, url.Values{"limit": {strconv.Itoa(limit)}, "label": labels})
		}
		return each(ids, func(id string) error { return p.showUpload(ctx, g, r, id) })
	})
}

// listUploads prints a table, newest first.
func (p *program) listUploads(ctx context.Context, g *gatewayClient, r *remote, query url.Values) error {
	list, err := g.list(ctx, query)
	if err != nil {
		return p.remoteFailed("status", "", err)
	}
	t := newTable(p.stdout, r.json, "ID\tSTATE\tSIZE\tDONE\tCHANGED\tNAME")
	for _, u := range list {
		if err := t.add(u.raw, "%s\t%s\t%s\t%s\t%s\t%s", printable(u.ID), printable(u.State), u.size(), u.done(), stamp(u.UpdatedAt), printable(u.Name)); err != nil {
			return err
		}
	}
	return t.end()
}

func (u *remoteUpload) size() string {
	if u.Size == nil {
		return ""
	}
	return bytesInWords(*u.Size)
}

// done is how much of the upload has been delivered or, while it comes in,
// received; nothing where that is plain.
func (u *remoteUpload) done() string {
	if u.over() || u.Progress.TotalBytes <= 0 || u.Progress.Bytes == 0 {
		return ""
	}
	return fmt.Sprintf("%d%%", int(100*float64(u.Progress.Bytes)/float64(u.Progress.TotalBytes)))
}

// showUpload prints all that there is to know of an upload.
func (p *program) showUpload(ctx context.Context, g *gatewayClient, r *remote, id string) error {
	u, _, err := g.upload(ctx, call{method: http.MethodGet, path: uploadPath(id)})
	if err != nil {
		return p.remoteFailed("status", id, err)
	}
	var all remoteAttempts
	if u.Attempts.Count > 1 || r.json {
		if all, err = g.attempts(ctx, id); err != nil {
			return p.remoteFailed("status", id, err)
		}
	}
	if r.json {
		return p.printJSON(withAttempts(u.raw, all.raw))
	}
	w := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
	for _, line := range uploadFacts(u) {
		if line[1] != "" {
			fmt.Fprintf(w, "%s\t%s\n", line[0], printable(line[1]))
		}
	}
	fmt.Fprintln(w)
	if err := w.Flush(); err != nil || len(all.Attempts) == 0 {
		return err
	}
	if err := p.printAttempts(all); err != nil {
		return err
	}
	_, err = fmt.Fprintln(p.stdout)
	return err
}

func uploadFacts(u remoteUpload) [][2]string {
	at := func(t time.Time) string {
		if t.IsZero() {
			return ""
		}
		return stamp(t)
	}
	facts := [][2]string{
		{"id", u.ID}, {"name", u.Name}, {"state", u.State}, {"error", u.Error}, {"size", u.size()}, {"done", u.done()},
		{"sha256", u.SHA256}, {"destination", u.Destination}, {"blocked", u.Blocked}, {"received", at(u.CreatedAt)}, {"changed", at(u.UpdatedAt)},
		{"delivered", at(u.DeliveredAt)}, {"attempts", strconv.Itoa(u.Attempts.Count)}, {"last error", u.Attempts.LastError},
		{"next attempt", at(u.Attempts.NextAt)}, {"receipt", u.Receipt},
	}
	for _, key := range slices.Sorted(maps.Keys(u.Labels)) {
		facts = append(facts, [2]string{"label", key + "=" + u.Labels[key]})
	}
	return facts
}

// uploadLine is an upload in a line.
func uploadLine(u remoteUpload) string {
	s := fmt.Sprintf("%s  %s", printable(u.ID), printable(u.State))
	if done := u.done(); done != "" {
		s += " " + done
	}
	s += "  " + printable(u.Name)
	switch {
	case u.Error != "":
		s += ": " + printable(u.Error)
	case u.State == "waiting" && u.Attempts.LastError != "":
		s += ": " + printable(u.Attempts.LastError)
	}
	return s
}

// printJSON prints what the gateway said of an upload, in one line.
func (p *program) printJSON(raw []byte) error {
	var line bytes.Buffer
	if err := json.Compact(&line, raw); err != nil {
		return fmt.Errorf("the gateway's answer is no JSON: %w", err)
	}
	line.WriteByte('\n')
	_, err := p.stdout.Write(line.Bytes())
	return err
}
