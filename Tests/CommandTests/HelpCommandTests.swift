import TestSupport
import Testing

@Suite("Help")
struct HelpCommandTests {
  private let strobe = Strobe(repository: "/nonexistent")

  @Test(
    "Every command's help has usage, examples and exit statuses",
    arguments: [
      "init", "snapshot", "list", "show", "restore", "diff", "verify", "delete", "gc", "thaw",
      "track", "prune", "protect", "unprotect", "status",
    ])
  func command(name: String) throws {
    let help = try strobe(name, "--help").expect(0)
    help.prints("Usage: strobe \(name)", "Examples:", "Exit status:", "--repository", "--json")
    for status in ["  0 ", "  1 ", "  2 "] { help.prints(status) }
    #expect(try strobe("help", name).output == help.output)
  }

  @Test("The program's help names all commands; wrong usage says where help is")
  func program() throws {
    try strobe("--help").expect(0).prints("snapshot", "restore", "verify", "Exit status:")
    #expect(try strobe().status == 2)
    try strobe("snapshto").expect(2, says: "snapshto", "snapshot", "strobe --help")
    try strobe("list", "--jsno").expect(2, says: "--jsno", "--json")
    try strobe("restore").expect(2, says: "POINT", "strobe restore --help")
  }
}
