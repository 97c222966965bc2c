package gateway

import (
	"context"
	"database/sql"
	"iter"
	"math/bits"
	"strconv"
	"strings"
)

// A perRow is a statement with as many rows of parameters as there are: few statements for
// many rows, and few different ones, which SQLite has prepared.
type perRow struct {
	columns int
	texts   [6]string // with 1, 2, 4, ... rows
}

// newPerRow has the statement repeat row, with commas between; each ? in it is a parameter.
func newPerRow(before, row, after string) *perRow {
	s := &perRow{columns: strings.Count(row, "?")}
	for i := range s.texts {
		var text strings.Builder
		text.WriteString(before)
		parameter := 0
		for n := range 1 << i {
			if n > 0 {
				text.WriteString(", ")
			}
			for _, c := range row {
				if c != '?' {
					text.WriteRune(c)
					continue
				}
				parameter++
				text.WriteString("$" + strconv.Itoa(parameter))
			}
		}
		text.WriteString(after)
		s.texts[i] = text.String()
	}
	return s
}

// statements are those for all rows, of which args has the parameters one behind the other.
func (s *perRow) statements(args []any) iter.Seq2[string, []any] {
	return func(yield func(string, []any) bool) {
		for len(args) > 0 {
			i := min(bits.Len(uint(len(args)/s.columns)), len(s.texts)) - 1
			n := s.columns << i
			if !yield(s.texts[i], args[:n]) {
				return
			}
			args = args[n:]
		}
	}
}

// exec executes the statement for all rows.
func (s *perRow) exec(ctx context.Context, tx *sql.Tx, args []any) error {
	for statement, args := range s.statements(args) {
		if _, err := tx.ExecContext(ctx, statement, args...); err != nil {
			return err
		}
	}
	return nil
}
