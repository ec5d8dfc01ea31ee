# shellcheck shell=bash disable=SC2034,SC2154
# Against a stand-in for the API of Firecracker and of Cloud Hypervisor: HTTP on a UNIX socket, the same paths,
# answers and status codes as in their documents.

cat >"$folder/api" <<'TEXT'
import http.server, json, os, socketserver, sys
path, state = sys.argv[1], sys.argv[2]
class Server(socketserver.UnixStreamServer):
    def get_request(self):
        request, _ = super().get_request()
        return request, ("guest", 0)
class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self, code, body=b""):
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        if self.path not in ("/", "/api/v1/vm.info"): return self.answer(404)
        self.answer(200, json.dumps({"id": "x", "state": open(state).read()}).encode())
    def change(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        wanted = {"/api/v1/vm.pause": "Paused", "/api/v1/vm.resume": "Running"}.get(self.path)
        if self.path == "/vm": wanted = {"Paused": "Paused", "Resumed": "Running"}[json.loads(body)["state"]]
        if os.path.exists(state + ".fail"): return self.answer(400, b"{}")
        open(state, "w").write(wanted)
        self.answer(204)
    do_PATCH = do_PUT = change
    def log_message(self, *words): pass
    def handle_one_request(self):
        try: super().handle_one_request()
        except BrokenPipeError: self.close_connection = True
Server(path, Handler).serve_forever()
TEXT
printf Running >"$folder/guest"
python3 "$folder/api" "$folder/api.sock" "$folder/guest" &
undo+=("kill $!")
eventually 5 test -S "$folder/api.sock"
paused() { [[ $(<"$folder/guest") == Paused ]]; }
running() { [[ $(<"$folder/guest") == Running ]]; }

printf 'HYPERVISOR=firecracker\n' >"$folder/config"
refuses "a socket is required" 'SOCKET is not set' hook pre-freeze
for kind in firecracker cloud-hypervisor; do
  printf 'SOCKET=%s\nHYPERVISOR=%s\nHOLD_MARGIN=1\n' "$folder/api.sock" "$kind" >"$folder/config"
  passes "$kind: pre-freeze succeeds" hook pre-freeze
  passes "$kind: the guest is paused" paused
  passes "$kind: post-thaw succeeds" hook post-thaw
  passes "$kind: the guest runs" running
done
passes "nothing is left" leaves_no_state

hook pre-freeze
kill -KILL -- "-$(<"$(find "$folder/state" -name pid)")"
passes "a holder that was killed leaves the guest paused" paused
refuses "post-thaw says so" 'session was lost' hook post-thaw
passes "and resumes it" running

hook pre-freeze 2
passes "a lost post-thaw is made good after deadline and margin" eventually 20 running
refuses "a late post-thaw fails" 'nobody released it' hook post-thaw

hook pre-freeze
printf Running >"$folder/guest"
refuses "a guest that somebody else resumed makes post-thaw fail" 'session was lost' hook post-thaw
printf Paused >"$folder/guest"
refuses "a guest that was paused by somebody else is refused" 'not running: Paused' hook pre-freeze 5
passes "and stays paused" paused
printf Running >"$folder/guest"
touch "$folder/guest.fail"
refuses "a pause that fails makes pre-freeze fail" 'not taken in time' hook pre-freeze 5
passes "and the guest runs" running
