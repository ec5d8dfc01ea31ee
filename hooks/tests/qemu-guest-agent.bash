# shellcheck shell=bash disable=SC2034,SC2154
# Against a peer that replays exchanges, and against a real agent in a real guest (by emulation).
# Never against an agent on this host: it would freeze the host.

socket=$folder/agent
printf 'SOCKET=%s\nHOLD_MARGIN=1\n' "$socket" >"$folder/config"

peer=
end_peer() { [[ -z $peer ]] || { kill "$peer"; wait "$peer"; }; }
undo+=(end_peer)
play() {
  end_peer 2>/dev/null
  rm -f "$socket" "$socket.frozen"
  "$tests/agent-peer" "$socket" "$1" &
  peer=$!
  eventually 10 test -S "$socket"
}
frozen() { [[ -e $socket.frozen ]]; }
thawed() { [[ ! -e $socket.frozen ]]; }

for behaviour in plain leftovers; do
  play "$behaviour"
  passes "$behaviour: pre-freeze succeeds" hook pre-freeze
  passes "$behaviour: the guest is frozen" frozen
  passes "$behaviour: post-thaw succeeds" hook post-thaw
  passes "$behaviour: the guest is thawed" thawed
  passes "$behaviour: post-thaw again succeeds" hook post-thaw
  passes "$behaviour: nothing is left" leaves_no_state
done
play none
refuses "a freeze of no file system is an error" '0 file systems frozen' hook pre-freeze
passes "nothing is left of it" leaves_no_state
play late
refuses "a freeze that is answered too late is an error" 'in time' hook pre-freeze 2
passes "and is thawed" eventually 10 thawed
passes "post-thaw after it succeeds" hook post-thaw
play silent
refuses "an agent that does not answer is an error" 'in time' hook pre-freeze 2
passes "post-thaw after it succeeds" hook post-thaw
end_peer 2>/dev/null
peer=
refuses "no agent is an error" 'onnection refused' hook pre-freeze

rm -f "$socket"
for program in qemu-system-x86_64 qemu-ga busybox cpio mkfs.ext4; do
  command -v "$program" >/dev/null || { skip "a real guest: no $program"; return; }
done
mkdir "$folder/guest"
"$tests/make-guest" "$folder/guest" >"$folder/output" 2>&1 || { skip "a real guest: no kernel for it"; return; }
truncate -s 64M "$folder/guest/disk.raw"
mkfs.ext4 -q "$folder/guest/disk.raw"
console=$folder/guest/console
qemu-system-x86_64 -machine q35 -accel tcg -cpu max -smp 1 -m 512 -display none -no-user-config \
  -nodefaults -kernel "$folder/guest/vmlinuz" -initrd "$folder/guest/initrd.gz" \
  -append "console=ttyS0 quiet panic=-1" -chardev "file,id=console,path=$console" \
  -serial chardev:console -device virtio-serial-pci \
  -chardev "socket,id=agent,path=$socket,server=on,wait=off" \
  -device virtserialport,chardev=agent,name=org.qemu.guest_agent.0 \
  -blockdev "driver=raw,node-name=disk,file.driver=file,file.filename=$folder/guest/disk.raw" \
  -device virtio-blk-pci,drive=disk >"$folder/output" 2>&1 &
guest=$!
end_guest() { kill "$guest"; wait "$guest"; }
undo+=(end_guest)

count() { grep -ao 'count [0-9]*' "$console" | tail -n 1; }
writes() { local before; before=$(count); eventually 10 counts_beyond "$before"; }
counts_beyond() { [[ $(count) != "$1" ]]; }
# A count may still be on its way when the freeze begins; two seconds without a new one after that.
is_still() { local before; sleep 0.5; before=$(count); sleep 2; [[ $(count) == "$before" ]]; }
journal_is_clean() { ! dumpe2fs -h "$folder/guest/disk.raw" 2>/dev/null | grep -q needs_recovery; }

if ! eventually 120 grep -qas 'count' "$console"; then
  broken "the test's guest started"
  return
fi
passes "guest: pre-freeze succeeds" eventually 30 hook pre-freeze
passes "guest: nothing is written" is_still
passes "guest: the file system on the disk needs no recovery" journal_is_clean
passes "guest: post-thaw succeeds" hook post-thaw
passes "guest: it writes again" writes
passes "guest: post-thaw again succeeds" hook post-thaw

# What a client that died in the middle of a line leaves.
python3 -c 'import socket, sys
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])
s.sendall(b"{\"execute\":\"guest-info\"}\n{\"exec")' "$socket"
passes "guest: pre-freeze works after a client that left half a line and an answer" hook pre-freeze
python3 -c 'import runpy, sys, time
agent = runpy.run_path(sys.argv[1])["Agent"](sys.argv[2], time.time() + 20)
agent.call("guest-fsfreeze-thaw")' "$hooks/qemu-guest-agent" "$socket"
refuses "guest: post-thaw says so when somebody else thawed" 'not frozen any more' hook post-thaw
hook pre-freeze 2
passes "guest: a lost post-thaw is made good after deadline and margin" eventually 20 writes
refuses "guest: a late post-thaw fails" 'not frozen any more' hook post-thaw
hook pre-freeze
passes "guest: a new pre-freeze thaws what an earlier pass left, and freezes" hook pre-freeze
passes "guest: nothing is written then either" is_still
passes "guest: its post-thaw succeeds" hook post-thaw
passes "guest: it writes in the end" writes
