import CLinux
import Glibc

// A standard stream that is closed must not become the number of a disk that is opened later.
for stream: Int32 in 0...2 where fcntl(stream, F_GETFD) == -1 {
  _ = unsafe open("/dev/null", O_RDONLY)
}
clinux_remember_termination_signals()
let status = Program.run(Array(CommandLine.arguments.dropFirst()))
exit(Console.flush() || status != 0 ? status : 1)
