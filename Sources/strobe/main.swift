import CLinux
import Glibc

clinux_remember_termination_signals()
let status = Program.run(Array(CommandLine.arguments.dropFirst()))
exit(Console.flush() || status != 0 ? status : 1)
