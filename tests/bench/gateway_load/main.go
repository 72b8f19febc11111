// Load for the model gateway's benchmark: a provider that answers at once, and a closed-loop client.
// Both are compiled, so that what is measured between them is the gateway.
//
//	gatewayload mock ADDRESS [GAP_MS]
//	gatewayload load URL CONNECTIONS SECONDS|nN BODY_FILE [HEADER=VALUE …]   prints one JSON object
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const events = 24

func words(n int) string { return strings.Repeat("word ", n) }

func anthropicWhole() []byte {
	return []byte(fmt.Sprintf(`{"id":"msg_1","type":"message","role":"assistant","model":"claude-sonnet-5","content":[{"type":"text","text":%q}],"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":300,"output_tokens":162}}`, words(160)))
}

func frame(event, data string) []byte {
	if event == "" {
		return []byte("data: " + data + "\n\n")
	}
	return []byte("event: " + event + "\ndata: " + data + "\n\n")
}

func anthropicFrames(tool bool) [][]byte {
	out := [][]byte{
		frame("message_start", `{"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"claude-sonnet-5","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":300,"output_tokens":1}}}`),
		frame("content_block_start", `{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}`),
	}
	texts := events - 5
	if tool {
		texts = 8
	}
	for i := 0; i < texts; i++ {
		out = append(out, frame("content_block_delta", `{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"word word word word word word word word "}}`))
	}
	out = append(out, frame("content_block_stop", `{"type":"content_block_stop","index":0}`))
	reason := "end_turn"
	if tool {
		reason = "tool_use"
		out = append(out, frame("content_block_start", `{"type":"content_block_start","index":1,"content_block":{"type":"tool_use","id":"toolu_1","name":"mcp__vestibule__read_file","input":{}}}`))
		for _, part := range []string{`{\"pa`, `th\": `, `\"src/`, `a.py\"`, `}`} {
			out = append(out, frame("content_block_delta", `{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"`+part+`"}}`))
		}
		out = append(out, frame("content_block_stop", `{"type":"content_block_stop","index":1}`))
	}
	out = append(out,
		frame("message_delta", `{"type":"message_delta","delta":{"stop_reason":"`+reason+`","stop_sequence":null},"usage":{"output_tokens":162}}`),
		frame("message_stop", `{"type":"message_stop"}`))
	return out
}

func chatWhole() []byte {
	return []byte(fmt.Sprintf(`{"id":"c1","object":"chat.completion","created":1,"model":"gpt-5","choices":[{"index":0,"message":{"role":"assistant","content":%q,"refusal":null},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":300,"completion_tokens":162,"total_tokens":462}}`, words(160)))
}

func mock(address string, gap time.Duration) {
	whole, chat := anthropicWhole(), chatWhole()
	plain, tool := anthropicFrames(false), anthropicFrames(true)
	var seen atomic.Int64
	http.HandleFunc("/count", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, seen.Load()) })
	handler := func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		seen.Add(1)
		if bytes.Contains(body, []byte(`"stream":true`)) || bytes.Contains(body, []byte(`"stream": true`)) {
			w.Header().Set("content-type", "text/event-stream")
			flusher := w.(http.Flusher)
			frames := plain
			if bytes.Contains(body, []byte(`"tools"`)) {
				frames = tool
			}
			for _, item := range frames {
				w.Write(item)
				flusher.Flush()
				if gap > 0 {
					time.Sleep(gap)
				}
			}
			return
		}
		answer := whole
		if strings.HasSuffix(r.URL.Path, "/chat/completions") {
			answer = chat
		}
		w.Header().Set("content-type", "application/json")
		w.Header().Set("content-length", strconv.Itoa(len(answer)))
		w.Write(answer)
	}
	http.HandleFunc("/", handler)
	listener, err := net.Listen("tcp", address)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	http.Serve(listener, nil)
}

type result struct {
	Requests  int     `json:"requests"`
	Errors    int     `json:"errors"`
	Seconds   float64 `json:"seconds"`
	PerSecond float64 `json:"per_second"`
	P50       float64 `json:"p50_ms"`
	P99       float64 `json:"p99_ms"`
	FirstP50  float64 `json:"first_p50_ms"`
	TextP50   float64 `json:"text_p50_ms"`
	Error     string  `json:"error,omitempty"`
}

func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sort.Float64s(values)
	return values[int(float64(len(values)-1)*q)]
}

func load(url string, connections int, until string, body []byte, headers []string) {
	transport := &http.Transport{MaxIdleConnsPerHost: connections, MaxConnsPerHost: connections, DisableCompression: true}
	client := &http.Client{Transport: transport}
	var left atomic.Int64
	left.Store(1 << 40)
	deadline := time.Now().Add(24 * time.Hour)
	if strings.HasPrefix(until, "n") {
		n, _ := strconv.ParseInt(until[1:], 10, 64)
		left.Store(n)
	} else {
		seconds, _ := strconv.ParseFloat(until, 64)
		deadline = time.Now().Add(time.Duration(seconds * float64(time.Second)))
	}
	stream := bytes.Contains(body, []byte(`"stream": true`)) || bytes.Contains(body, []byte(`"stream":true`))
	var mutex sync.Mutex
	var all, first, text []float64
	var failed int
	var problem string
	var group sync.WaitGroup
	begun := time.Now()
	for i := 0; i < connections; i++ {
		group.Add(1)
		go func() {
			defer group.Done()
			var mine, myFirst, myText []float64
			for time.Now().Before(deadline) && left.Add(-1) >= 0 {
				request, _ := http.NewRequest("POST", url, bytes.NewReader(body))
				for _, header := range headers {
					name, value, _ := strings.Cut(header, "=")
					request.Header.Set(name, value)
				}
				request.Header.Set("content-type", "application/json")
				start := time.Now()
				response, err := client.Do(request)
				if err != nil {
					mutex.Lock()
					failed++
					problem = err.Error()
					mutex.Unlock()
					continue
				}
				if stream && response.StatusCode == 200 {
					reader := bufio.NewReader(response.Body)
					seen, said := false, false
					for {
						line, err := reader.ReadBytes('\n')
						if !seen && len(line) > 0 {
							myFirst = append(myFirst, float64(time.Since(start).Nanoseconds())/1e6)
							seen = true
						}
						if !said && bytes.Contains(line, []byte("text_delta")) {
							myText = append(myText, float64(time.Since(start).Nanoseconds())/1e6)
							said = true
						}
						if err != nil {
							break
						}
					}
				} else {
					data, _ := io.ReadAll(response.Body)
					if response.StatusCode != 200 {
						mutex.Lock()
						failed++
						problem = fmt.Sprint(response.StatusCode, " ", string(data[:min(len(data), 300)]))
						mutex.Unlock()
					}
				}
				response.Body.Close()
				mine = append(mine, float64(time.Since(start).Nanoseconds())/1e6)
			}
			mutex.Lock()
			all, first, text = append(all, mine...), append(first, myFirst...), append(text, myText...)
			mutex.Unlock()
		}()
	}
	group.Wait()
	seconds := time.Since(begun).Seconds()
	json.NewEncoder(os.Stdout).Encode(result{len(all), failed, seconds, float64(len(all)-failed) / seconds,
		quantile(all, 0.5), quantile(all, 0.99), quantile(first, 0.5), quantile(text, 0.5), problem})
}

func main() {
	if len(os.Args) > 2 && os.Args[1] == "mock" {
		gap := 0.0
		if len(os.Args) > 3 {
			gap, _ = strconv.ParseFloat(os.Args[3], 64)
		}
		mock(os.Args[2], time.Duration(gap*float64(time.Millisecond)))
		return
	}
	if len(os.Args) > 5 && os.Args[1] == "load" {
		connections, _ := strconv.Atoi(os.Args[3])
		body, err := os.ReadFile(os.Args[5])
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		load(os.Args[2], connections, os.Args[4], body, os.Args[6:])
		return
	}
	fmt.Fprintln(os.Stderr, "usage: gatewayload mock ADDRESS [GAP_MS] | load URL CONNECTIONS SECONDS|nN BODY_FILE [HEADER=VALUE …]")
	os.Exit(2)
}
