import Testing
import VirtualMachines

@Suite("JSON values")
struct JSONValueTests {
  @Test("Are the same after they were written and read")
  func roundTrip() {
    let value: JSONValue = [
      "execute": "transaction", "numbers": [0, -1, 9_007_199_254_740_993], "flag": true,
      "nothing": .null, "text": "ä\u{1F600}\"\\\n/", "deep": ["a": ["b": [:]]],
    ]
    #expect(JSONValue(decoding: value.line.utf8) == value)
    #expect(!value.line.contains("\n"))
  }

  @Test(
    "What is no JSON is nil",
    arguments: ["", "{", "{\"a\":}", "[1,", "nul", "\u{FF}{}", "{\"a\":1}{\"b\":2}"])
  func refused(text: String) {
    #expect(JSONValue(decoding: text.utf8) == nil)
  }

  @Test("What lies deeper than a small stack is refused where there is one", arguments: [64, 65])
  func deep(depth: Int) {
    let text =
      String(repeating: "{\"a\":", count: depth) + "1" + String(repeating: "}", count: depth)
    #expect((JSONValue(decoding: text.utf8, bracketLimit: 64) != nil) == (depth == 64))
  }
}
