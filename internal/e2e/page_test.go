package e2e_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var screenshots = flag.String("screenshots", "", "write pictures of the page to this `folder`")

// scenarioLimit bounds one scenario in the browser.
const scenarioLimit = 4 * time.Minute

// markup is a name that would be an element, were it not taken for text.
const markup = `<img src=x onerror=alert(1)><b>bold`

// TestPage uses the page of a running Ferry in a browser.
func TestPage(t *testing.T) {
	t.Parallel()
	inBrowsers(t, pageJourney)
}

func pageJourney(t *testing.T, browser string) {
	data := t.TempDir()
	p := up(t, data).tap()

	dir := t.TempDir()
	chosen := randomBytes(2<<20 + 1)
	long := strings.Repeat("lo ng-", 41) + "name.txt"
	files := map[string][]byte{
		"chosen.bin":  chosen,
		"empty.txt":   {},
		"dropped.txt": []byte("it was dropped\n"),
		long:          []byte("a long name\n"),
	}
	for name, content := range files {
		write(t, filepath.Join(dir, name), content)
	}
	write(t, filepath.Join(dir, "other", "chosen.bin"), []byte("other bytes under the same name"))
	write(t, filepath.Join(dir, "taken.bin"), []byte("other bytes than the server has"))
	takeName(t, p.http, func() string { return filepath.Join(storedFolder(t, filepath.Join(data, "server")), "taken.bin") })

	sum := sha256.Sum256(chosen)
	browseIn(t, browser, "journey", p, map[string]any{
		"dir": dir, "long": long, "markup": markup, "sha256": hex.EncodeToString(sum[:]),
	}, nil)
	files[markup] = []byte("only a name")
	files["taken.bin"] = []byte(taken)
	wantStored(t, data, files)
}

// taken is what a server has under a name that the gateway knows nothing of.
const taken = "what the server has"

// takeName puts a file in a server's folder for its gateway, which forgets the
// upload that made the folder.
func takeName(t *testing.T, base string, path func() string) {
	t.Helper()
	const first = "first.txt"
	u, err := post(t.Context(), base, first, strings.NewReader(first), int64(len(first)))
	if err != nil {
		t.Fatal(err)
	}
	waitDelivered(t, base, u.ID, 30*time.Second)
	do(t, http.MethodDelete, base+"/uploads/"+u.ID)
	write(t, path(), []byte(taken))
	if err := os.Remove(filepath.Join(filepath.Dir(path()), first)); err != nil {
		t.Fatal(err)
	}
}

// TestPageTooLarge offers what wire version 3 cannot carry.
func TestPageTooLarge(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const large = "large.iso"
	write(t, filepath.Join(dir, large), nil)
	if err := os.Truncate(filepath.Join(dir, large), 700<<20); err != nil {
		t.Fatal(err)
	}
	p := start(t, "up", "--data", t.TempDir(), "--http", "127.0.0.1:0", "--listen", "none", "--v3-listen", "127.0.0.1:0")
	browse(t, "large", p, map[string]any{"dir": dir, "large": large})
}

// TestPageKeyboard uses the page without a mouse.
func TestPageKeyboard(t *testing.T) {
	t.Parallel()
	inBrowsers(t, pageKeyboard)
}

func pageKeyboard(t *testing.T, browser string) {
	data, dir := t.TempDir(), t.TempDir()
	files := map[string][]byte{"one.txt": []byte("one\n"), "two.txt": []byte("two\n")}
	for name, content := range files {
		write(t, filepath.Join(dir, name), content)
	}
	browseIn(t, browser, "keyboard", up(t, data).tap(), map[string]any{"dir": dir}, nil)
	wantStored(t, data, files)
}

// TestPageTrouble sees the page when what it sends or asks for does not come
// through.
func TestPageTrouble(t *testing.T) {
	t.Parallel()
	inBrowsers(t, pageTrouble)
}

func pageTrouble(t *testing.T, browser string) {
	data, dir := t.TempDir(), t.TempDir()
	files := map[string][]byte{"before.txt": []byte("before\n"), "after.txt": []byte("after\n"), "damaged.txt": []byte("damaged\n"), "changed.txt": []byte("changed\n")}
	for name, content := range files {
		write(t, filepath.Join(dir, name), content)
	}
	write(t, filepath.Join(dir, "cancelled.txt"), []byte("cancelled\n"))
	browseIn(t, browser, "troubled", up(t, data).tap(), map[string]any{"dir": dir}, nil)
	wantStored(t, data, files)
}

// TestPageMany sends and lists more files than the page takes at once.
func TestPageMany(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	browse(t, "many", up(t, data), nil)
	files := map[string][]byte{}
	for i := range 60 {
		name := fmt.Sprintf("%02d.txt", i+1)
		files[name] = []byte(name)
	}
	wantStored(t, data, files)
}

// TestPageWithoutScripts uses the form alone.
func TestPageWithoutScripts(t *testing.T) {
	t.Parallel()
	inBrowsers(t, pageWithoutScripts)
}

func pageWithoutScripts(t *testing.T, browser string) {
	data, dir := t.TempDir(), t.TempDir()
	content := []byte("sent by the form\n")
	write(t, filepath.Join(dir, "scriptless.txt"), content)
	p := up(t, data).tap()
	browseIn(t, browser, "scriptless", p, map[string]any{"dir": dir, "preferences": map[string]any{"javascript.enabled": false}}, nil)
	var listed struct {
		Uploads []upload `json:"uploads"`
	}
	if err := getJSON(t.Context(), p.http+"/uploads", &listed); err != nil || len(listed.Uploads) != 1 {
		t.Fatalf("uploads: %+v, %v; want one", listed.Uploads, err)
	}
	waitDelivered(t, p.http, listed.Uploads[0].ID, 10*time.Second)
	wantStored(t, data, map[string][]byte{"scriptless.txt": content})
}

// TestPageStates shows uploads in every state, by way of a destination that is
// slow for one connection and cuts off all others. It takes the pictures.
func TestPageStates(t *testing.T) {
	t.Parallel()
	inBrowsers(t, pageStates)
}

func pageStates(t *testing.T, browser string) {
	gw, files, between := inAllStates(t)
	pictures := ""
	if *screenshots != "" && browser == "chromium" {
		pictures = t.TempDir()
	}
	browseIn(t, browser, "states", gw, map[string]any{"screenshots": pictures, "pictures": *pagePictures, "files": files}, map[string]func(){
		"heal": func() { between.cut.Store(false) },
	})
	if pictures != "" {
		keepPictures(t, pictures, *screenshots)
	}
}

// inAllStates is a gateway that has an upload in each state, their names by the
// states, and the relay to its destination, which cuts off all connections but one.
func inAllStates(t *testing.T) (*process, map[string]string, *relay) {
	t.Helper()
	srv := startV4(t, t.TempDir())
	between := newRelay(t, srv.v4)
	gw := srv.startGatewayV4(t.TempDir(), between.address(), "studio").process
	send := func(name string, size int) upload {
		t.Helper()
		u, err := post(t.Context(), gw.http, name, bytes.NewReader(randomBytes(size)), int64(size))
		if err != nil {
			t.Fatal(err)
		}
		return u
	}

	const report = "Quarterly report.pdf"
	takeName(t, gw.http, func() string { return srv.stored("studio", report) })
	budget := send("Budget.xlsx", 1_840_000)
	waitDelivered(t, gw.http, budget.ID, 30*time.Second)
	delivered := send("podcast-041.mp3", 38_200_000)
	waitDelivered(t, gw.http, delivered.ID, 30*time.Second)
	failed := send(report, 1_790_000)
	waitFor(t, gw.http, failed.ID, func(u upload) bool { return u.State == "failed" })

	between.slow.Store(true)
	between.drop()
	delivering := send("interview-take-2.wav", 96_000_000)
	waitFor(t, gw.http, delivering.ID, func(u upload) bool { return u.Progress.Bytes > 24_000_000 })

	between.cut.Store(true)
	cancelled := send("draft-3.key", 12_600_000)
	do(t, http.MethodDelete, gw.http+"/uploads/"+cancelled.ID)
	waitFor(t, gw.http, cancelled.ID, func(u upload) bool { return u.State == "cancelled" })
	waiting := send("photos-2024.tar", 48_000_000)
	// Later attempts are far apart: none comes in the middle of a picture.
	waitFor(t, gw.http, waiting.ID, func(u upload) bool { return u.State == "waiting" && u.Attempts.Count >= 4 })
	receiving := slowly(t, gw.http, "backup.sqlite", 210_000_000, 118_000_000)
	return gw, map[string]string{
		"delivered": delivered.Name, "failed": failed.Name, "cancelled": cancelled.Name,
		"waiting": waiting.Name, "delivering": delivering.Name, "receiving": receiving,
	}, between
}

// keepPictures writes the browser's pictures to a folder in a third of their
// size: with 64 colours, which are more than the eye sees in a page.
func keepPictures(t *testing.T, from, to string) {
	t.Helper()
	for _, name := range []string{"page.png", "page-dark.png", "page-details.png"} {
		b, err := os.ReadFile(filepath.Join(from, name))
		if err != nil {
			t.Fatal(err)
		}
		picture, err := png.Decode(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		var small bytes.Buffer
		encoder := png.Encoder{CompressionLevel: png.BestCompression}
		if err := encoder.Encode(&small, withPalette(picture)); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(to, name), small.Bytes())
	}
}

// withPalette is a picture in its own 64 most frequent colours.
func withPalette(picture image.Image) *image.Paletted {
	bounds := picture.Bounds()
	often := map[color.Color]int{}
	for y := bounds.Min.Y; y < bounds.Max.Y; y++ {
		for x := bounds.Min.X; x < bounds.Max.X; x++ {
			often[picture.At(x, y)]++
		}
	}
	palette := slices.SortedFunc(maps.Keys(often), func(a, b color.Color) int { return often[b] - often[a] })
	small := image.NewPaletted(bounds, palette[:min(len(palette), 64)])
	nearest := map[color.Color]color.Color{}
	for y := bounds.Min.Y; y < bounds.Max.Y; y++ {
		for x := bounds.Min.X; x < bounds.Max.X; x++ {
			c := picture.At(x, y)
			if nearest[c] == nil {
				nearest[c] = small.Palette.Convert(c)
			}
			small.Set(x, y, nearest[c])
		}
	}
	return small
}

// TestPageTypes checks what the page's scripts say of their types.
func TestPageTypes(t *testing.T) {
	t.Parallel()
	npm := filepath.Join("..", "..", "tools", "npm")
	cmd := exec.CommandContext(t.Context(), "node", filepath.Join(npm, "node_modules", "typescript", "bin", "tsc"), "-p", npm)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// TestPageColours sees the page in Firefox where the system is dark, and where
// it forces its colours; the states are seen in both in Chromium.
func TestPageColours(t *testing.T) {
	t.Parallel()
	gw, files, _ := inAllStates(t)
	for media, c := range map[string]struct {
		preferences map[string]any
		colours     []string // of text and ground
	}{
		"(prefers-color-scheme: dark)": {map[string]any{"ui.systemUsesDarkTheme": 1}, []string{"rgb(230, 238, 238)", "rgb(15, 23, 25)"}},
		"(forced-colors: active)":      {map[string]any{"browser.display.document_color_use": 2}, []string{"rgb(0, 0, 0)", "rgb(255, 255, 255)"}},
	} {
		browseIn(t, "firefox", "coloured", gw, map[string]any{"files": files, "media": media, "preferences": c.preferences, "colours": c.colours}, nil)
	}
}

// browsers are those that most journeys are made in, by the commands that
// they are. Others are made in Chromium alone, as they take long.
var browsers = map[string]string{"chromium": "chromium", "firefox": "firefox-esr"}

// inBrowsers runs a journey in each browser.
func inBrowsers(t *testing.T, journey func(t *testing.T, browser string)) {
	t.Helper()
	for browser := range browsers {
		t.Run(browser, func(t *testing.T) {
			t.Parallel()
			journey(t, browser)
		})
	}
}

// browse runs a scenario of testdata/page.mjs on the page of p in Chromium.
func browse(t *testing.T, scenario string, p *process, more map[string]any) {
	t.Helper()
	browseIn(t, "chromium", scenario, p, more, nil)
}

// browseIn is browse in a browser, for a scenario that may ask for something to
// be done meanwhile, by its name.
func browseIn(t *testing.T, browser, scenario string, p *process, more map[string]any, actions map[string]func()) {
	t.Helper()
	program, err := exec.LookPath(browsers[browser])
	if err != nil {
		t.Fatalf("%v; make deps installs it", err)
	}
	given := map[string]any{"base": p.http, "browser": browser, "program": program, "fonts": fonts(t)}
	maps.Copy(given, more)
	parameters, err := json.Marshal(given)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), scenarioLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", filepath.Join("testdata", "page.mjs"), scenario, string(parameters))
	var said bytes.Buffer
	cmd.Stderr = &said
	asked, err1 := cmd.StdoutPipe()
	done, err2 := cmd.StdinPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	var unknown strings.Builder
	for lines := bufio.NewScanner(asked); lines.Scan(); {
		act := actions[lines.Text()]
		if act == nil {
			unknown.WriteString("it printed " + lines.Text() + "\n")
			continue
		}
		act()
		_, _ = io.WriteString(done, "done\n") // it may have ended
	}
	if err := cmd.Wait(); err != nil || unknown.String() != "" {
		t.Fatalf("%s: %v\n%s%s", scenario, errors.Join(err, ctx.Err()), unknown.String(), said.Bytes())
	}
}

// fonts has Inter taken for the system's typeface where it is installed, so
// that the pictures look as the page does on most screens.
func fonts(t *testing.T) string {
	path := filepath.Join(t.TempDir(), "fonts.conf")
	write(t, path, []byte(`<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "urn:fontconfig:fonts.dtd">
<fontconfig>
  <include>/etc/fonts/fonts.conf</include>
  <match target="pattern">
    <test name="family"><string>ui-monospace</string></test>
    <edit name="family" mode="assign" binding="strong"><string>monospace</string></edit>
  </match>
  <match target="pattern">
    <test qual="all" name="family" compare="not_contains"><string>mono</string></test>
    <edit name="family" mode="prepend" binding="strong"><string>Inter</string></edit>
  </match>
</fontconfig>
`))
	return path
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return b
}

func write(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, content, 0o644)); err != nil {
		t.Fatal(err)
	}
}

// wantStored fails unless the server of ferry up stores these files and no
// others.
func wantStored(t *testing.T, data string, files map[string][]byte) {
	t.Helper()
	folder := storedFolder(t, filepath.Join(data, "server"))
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != len(files) {
		t.Errorf("%d files are stored, want %d: %v", len(entries), len(files), entries)
	}
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join(folder, name))
		if err != nil {
			t.Error(err)
		} else if !bytes.Equal(got, want) {
			t.Errorf("%q: %d bytes are stored that are not the %d sent", name, len(got), len(want))
		}
	}
}

// waitFor polls until the upload is as wished.
func waitFor(t *testing.T, base, id string, wished func(upload) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	var last upload
	for {
		u, err := get(ctx, base, id)
		if err != nil {
			t.Fatalf("upload %s, last seen %+v: %v", id, last, err)
		}
		if last = u; wished(u) {
			return
		}
		<-tick.C
	}
}

func do(t *testing.T, method, url string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	if err := errors.Join(err, res.Body.Close()); err != nil {
		t.Fatal(err)
	}
	if res.StatusCode >= http.StatusBadRequest {
		t.Fatalf("%s %s: %s: %s", method, url, res.Status, body)
	}
}

// slowly begins an upload of size bytes and has sent the first of them when it
// returns; of the others, so few come while the test runs that the gateway just
// goes on waiting for them. It returns the name.
func slowly(t *testing.T, base, name string, size, first int64) string {
	t.Helper()
	body, more := io.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	var sending sync.WaitGroup
	sending.Go(func() { _, _ = post(ctx, base, name, body, size) })
	t.Cleanup(func() {
		cancel()
		_ = more.CloseWithError(context.Canceled)
		sending.Wait()
	})
	if _, err := more.Write(make([]byte, first)); err != nil {
		t.Fatal(err)
	}
	sending.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			if _, err := more.Write(make([]byte, 16<<10)); err != nil {
				return
			}
		}
	})
	return name
}

// A relay carries connections on to a server. While cut is set it cuts off new
// ones; while slow is set, it first carries one, slowly. Of the next connections,
// as many as there are cuts end after so many bytes of one direction, which
// change from one to the next.
type relay struct {
	ln        net.Listener
	to        string
	cut, slow atomic.Bool
	cuts      atomic.Int64
	running   sync.WaitGroup
	ctx       context.Context
	sent      atomic.Int64 // bytes, to the server

	mu    sync.Mutex
	conns []net.Conn // guarded by mu
}

func newRelay(t *testing.T, to string) *relay {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return relayOn(t, ln, to)
}

// relayOn is newRelay with a listener that there is.
func relayOn(t *testing.T, ln net.Listener, to string) *relay {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r := &relay{ln: ln, to: to, ctx: ctx}
	r.running.Go(r.accept)
	t.Cleanup(func() {
		cancel()
		_ = ln.Close()
		r.running.Wait()
	})
	return r
}

// countedReader adds up what is read.
type countedReader struct {
	io.Reader
	bytes *atomic.Int64
}

func (c countedReader) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.bytes.Add(int64(n))
	return n, err
}

func (r *relay) address() string { return r.ln.Addr().String() }

// drop cuts the connections that there are.
func (r *relay) drop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, conn := range r.conns {
		_ = conn.Close()
	}
	r.conns = nil
}

func (r *relay) accept() {
	for {
		conn, err := r.ln.Accept()
		if err != nil {
			return // closed by the cleanup
		}
		slow := r.slow.CompareAndSwap(true, false)
		if r.cut.Load() && !slow {
			_ = conn.Close()
			continue
		}
		r.mu.Lock()
		r.conns = append(r.conns, conn)
		r.mu.Unlock()
		cut := max(r.cuts.Add(-1)+1, 0)
		r.running.Go(func() { r.carry(conn, slow, cut) })
	}
}

// carry copies both ways until one end closes, or the test ends, or the bytes of
// the cut of that number have passed; 0 is none.
func (r *relay) carry(conn net.Conn, slow bool, cut int64) {
	server, err := new(net.Dialer).DialContext(r.ctx, "tcp", r.to)
	if err != nil {
		_ = conn.Close()
		return
	}
	ctx, cancel := context.WithCancel(r.ctx)
	defer context.AfterFunc(ctx, func() { _, _ = conn.Close(), server.Close() })()
	var ways sync.WaitGroup
	ways.Go(func() {
		defer cancel()
		var from io.Reader = server
		if cut%2 == 1 { // in an answer
			from = io.LimitReader(server, cut*300)
		}
		_, _ = io.Copy(conn, from)
	})
	ways.Go(func() {
		defer cancel()
		var from io.Reader = conn
		if slow {
			from = &trickle{from: conn, left: 40_000_000, tick: time.NewTicker(50 * time.Millisecond)}
		}
		if cut > 0 && cut%2 == 0 { // in a request
			from = io.LimitReader(from, cut*100_000)
		}
		_, _ = io.Copy(server, countedReader{from, &r.sent})
	})
	ways.Wait()
	cancel()
}

// trickle reads fast at first, then a little at each tick.
type trickle struct {
	from io.Reader
	left int // what is read fast
	tick *time.Ticker
}

func (r *trickle) Read(p []byte) (int, error) {
	if r.left <= 0 {
		<-r.tick.C
		p = p[:min(len(p), 16<<10)]
	}
	n, err := r.from.Read(p)
	r.left -= n
	return n, err
}
