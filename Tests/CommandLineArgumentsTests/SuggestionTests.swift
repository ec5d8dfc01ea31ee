import CommandLineArguments
import Testing

@Suite("Suggestions")
struct SuggestionTests {
  /// The part of the error between "did you mean" and the question mark.
  private func suggestions(for typed: String, among names: [String]) -> String? {
    let program = ProgramDeclaration(
      name: "p", summary: "", version: "1",
      commands: names.map { CommandDeclaration(name: $0, summary: "") })
    do {
      _ = try program.parse([typed])
      return nil
    } catch {
      let start = "did you mean "
      guard error.advice.hasPrefix(start) else { return nil }
      return String(error.advice.dropFirst(start.count).prefix { $0 != "?" })
    }
  }

  @Test(
    "A letter changed, missing, added or swapped is forgiven, and so is the case",
    arguments: ["restory", "restor", "restoree", "retsore", "RESTORE", "rest"])
  func mistakes(typed: String) {
    #expect(suggestions(for: typed, among: ["list", "restore", "prune"]) == "'restore'")
  }

  @Test("Of several, the nearest are named, at most three")
  func several() {
    #expect(suggestions(for: "shaw", among: ["show", "shower", "thaw"]) == "'show' or 'thaw'")
    #expect(
      suggestions(for: "ax", among: ["aa", "ab", "ac", "ad"]) == "'aa' or 'ab' or 'ac'")
  }

  @Test(
    "Nothing is suggested for what is like nothing",
    arguments: ["x", "", "mount", String(repeating: "restore", count: 10_000)])
  func none(typed: String) {
    #expect(suggestions(for: typed, among: ["list", "restore"]) == nil)
  }
}
