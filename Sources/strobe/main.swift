import CLinux
import Engine
import Glibc

// A snapshot that freezes file systems starts its guardian so: it is nothing that a user calls.
if GuardianEntry.isWanted(CommandLine.arguments.dropFirst()) { exit(GuardianEntry.run()) }
// A standard stream that is closed must not become the number of a disk that is opened later.
for stream: Int32 in 0...2 where fcntl(stream, F_GETFD) == -1 {
  _ = unsafe open("/dev/null", O_RDONLY)
}
// A chain may reach into thousands of segments.
var limit = rlimit()
if unsafe getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 {
  limit.rlim_cur = max(limit.rlim_cur, min(limit.rlim_max, 16384))
  unsafe setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
}
clinux_remember_termination_signals()
let status = Program.run(Array(CommandLine.arguments.dropFirst()))
exit(Console.flush() || status != 0 ? status : 1)
