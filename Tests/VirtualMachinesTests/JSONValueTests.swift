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

  @Test("Brackets in strings are no brackets; no string hides one")
  func strings() {
    let text: JSONValue = ["a": .string(String(repeating: "[{\"\\", count: 100)), "b": [[1]]]
    #expect(JSONValue(decoding: text.line.utf8, bracketLimit: 3) == text)
    #expect(JSONValue(decoding: text.line.utf8, bracketLimit: 2) == nil)
    #expect(JSONValue(decoding: #"{"\\":[{}]}"#.utf8, bracketLimit: 2) == nil)
    // In UTF-16 what looks like the escape of a quotation mark is none.
    let wide = #"["\\",[[[[]]]]]"#.utf16.flatMap { [UInt8($0 & 0xff), UInt8($0 >> 8)] }
    #expect(JSONValue(decoding: wide, bracketLimit: 100) == nil)
  }
}
