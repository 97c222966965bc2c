package gateway

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"pgregory.net/rapid"

	"ferry/proto"
)

// TestUploadJSON compares what an upload looks like with what encoding/json makes of it, and knows
// all its fields.
func TestUploadJSON(t *testing.T) {
	text := rapid.OneOf(rapid.String(), rapid.StringMatching(`[ -~]*`), rapid.SampledFrom([]string{"", `"`, `\`, "<a>&'", "\x00\n\x7f", "\xff\xfe", "\u2028", "é"}))
	number := rapid.Int64()
	at := rapid.Custom(func(t *rapid.T) time.Time {
		zone := time.FixedZone("", 60*rapid.IntRange(-23*60, 23*60).Draw(t, "zone"))
		return time.Unix(rapid.Int64Range(-62e9, 253e9).Draw(t, "seconds"), rapid.SampledFrom([]int64{0, 1, 1000, 120_000_000, 999_999_999}).Draw(t, "nanoseconds")).In(zone)
	})
	word, many, when := rapid.Ptr(text, true), rapid.Ptr(number, true), rapid.Ptr(at, true)
	rapid.Check(t, func(t *rapid.T) {
		u := Upload{
			ID: ulid.ULID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id")), Name: text.Draw(t, "name"), Size: many.Draw(t, "size"),
			State: State(text.Draw(t, "state")), Held: rapid.Bool().Draw(t, "held"),
			Phase:    rapid.Ptr(rapid.Map(text, func(s string) proto.Phase { return proto.Phase(s) }), true).Draw(t, "phase"),
			Progress: Progress{number.Draw(t, "bytes"), number.Draw(t, "total"), number.Draw(t, "packets"), number.Draw(t, "total packets")},
			Attempts: Attempts{rapid.Int().Draw(t, "count"), word.Draw(t, "last error"), when.Draw(t, "next")},
			Mode:     word.Draw(t, "mode"), ModifiedAt: when.Draw(t, "modified"), SHA256: word.Draw(t, "sha256"),
			Cksum: rapid.Ptr(rapid.Uint32(), true).Draw(t, "cksum"), Destination: text.Draw(t, "destination"), DestinationName: text.Draw(t, "destination name"),
			Blocked: word.Draw(t, "blocked"), CreatedAt: at.Draw(t, "created"), UpdatedAt: at.Draw(t, "updated"), DeliveredAt: when.Draw(t, "delivered"),
			Receipt: word.Draw(t, "receipt"), Error: word.Draw(t, "error"), Labels: rapid.MapOfN(text, text, -1, 4).Draw(t, "labels"), Change: 1,
		}
		if rapid.Bool().Draw(t, "none") {
			u.Labels = nil
		}
		type reflected Upload // encodeJSON knows nothing of
		want := encodeJSON(reflected(u))
		if got := encodeJSON(u); !bytes.Equal(got, want) {
			t.Errorf("%s, want %s", got, want)
		}
		if got := encodeJSON(&u); !bytes.Equal(got, want) {
			t.Errorf("%s, want %s", got, want)
		}
	})
	for _, value := range []any{Upload{}, &Upload{}} {
		reflects := testing.AllocsPerRun(100, func() { encodeJSON(struct{ Upload any }{value}) })
		if n := testing.AllocsPerRun(100, func() { encodeJSON(value) }); 2*n > reflects {
			t.Errorf("a %T takes %.0f allocations, as if encoding/json had done it, with %.0f", value, n, reflects)
		}
	}
	var fields map[string]any
	if err := json.Unmarshal(encodeJSON(Upload{}), &fields); err != nil {
		t.Fatal(err)
	}
	if want := reflect.TypeFor[Upload]().NumField() - 1; len(fields) != want { // but for Change
		t.Errorf("an upload has %d fields, want %d", len(fields), want)
	}
}
