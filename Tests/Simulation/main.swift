import Glibc
import SimulationCalls

// simulate: see `scripts/simulate --help`.

simulation_begin()
do {
  exit(try Arguments(CommandLine.arguments.dropFirst()).run())
} catch {
  complain("simulate: \(error.text)")
  exit(2)
}
