import Glibc
import Platform
import Testing

@Suite("The funnel to the kernel")
struct SystemCallTests {
  @Test("An interrupted call is made again until it isn't")
  func interrupted() throws {
    var calls = 0
    let value: Int = try systemCall("read", "nothing") {
      calls += 1
      errno = EINTR
      return calls < 4 ? -1 : 42
    }
    #expect(value == 42)
    #expect(calls == 4)
  }

  @Test("An object is described only when the call failed")
  func lazyObject() throws {
    var described = 0
    func describe() -> String {
      described += 1
      return "thing"
    }
    _ = try systemCall("read", describe()) { 0 }
    #expect(described == 0)
    #expect(throws: StrobeError.self) {
      _ = try systemCall("read", describe()) {
        errno = EIO
        return -1
      }
    }
    #expect(described == 1)
  }

  @Test("The error carries errno, the call and the object, and says all three in words")
  func failure() throws {
    let error = #expect(throws: StrobeError.self) {
      _ = try systemCall("fsync", "/some/where") {
        errno = EIO
        return -1
      }
    }
    #expect(error?.reason == .system(errno: EIO, call: "fsync", object: "/some/where"))
    #expect(error?.errno == EIO)
    #expect(error?.message == "/some/where: fsync: Input/output error")
    #expect(error?.description == error?.message)
  }

  @Test("Other negative values than -1 are results, not errors")
  func negativeResult() throws {
    #expect(try systemCall("odd", "") { Int(-2) } == -2)
  }

  @Test(
    "What a person can do about it is said",
    arguments: [
      (ENOSPC, "free space"), (EDQUOT, "free space"), (EROFS, "mounted read-only"),
      (EACCES, "run it as root"), (EPERM, "run it as root"), (EMFILE, "ulimit -n"),
      (ENFILE, "ulimit -n"),
    ])
  func advice(code: Int32, words: String) {
    let error = StrobeError.system(code, call: "open", object: "x")
    #expect(error.advice?.contains(words) == true)
    #expect(error.description == error.message + "; " + (error.advice ?? ""))
  }

  @Test("A read error is of the object, want of memory or of descriptors isn't")
  func tellsUnreadable() {
    #expect(StrobeError.damaged("layer", expected: "1", found: "2").isUnreadable)
    #expect(StrobeError.system(EIO, call: "read", object: "layer").isUnreadable)
    for code in [ENOMEM, EMFILE, ENOSPC, EACCES, ENOENT] {
      #expect(!StrobeError.system(code, call: "read", object: "layer").isUnreadable)
    }
  }

  @Test("Where there is nothing to advise, nothing is", arguments: [EIO, ENOENT, EINVAL, EBUSY])
  func noAdvice(code: Int32) {
    #expect(StrobeError.system(code, call: "open", object: "x").advice == nil)
  }

  @Test("Every error text is one line without a full stop at its end")
  func oneLine() {
    for code in Int32(1)...133 {
      let text = StrobeError.system(code, call: "call", object: "object").description
      #expect(!text.contains("\n") && !text.hasSuffix("."), "\(code): \(text)")
    }
  }
}

@Suite("Errors")
struct StrobeErrorTests {
  @Test("Damage names the object, what was expected and what was found")
  func damage() {
    let error = StrobeError.damaged("layer 7", expected: "checksum 1", found: "2")
    #expect(error.reason == .damaged(object: "layer 7", expected: "checksum 1", found: "2"))
    #expect(error.message == "layer 7 is damaged: expected checksum 1, found 2")
    #expect(error.isDamage)
    #expect(error.errno == 0)
  }

  @Test("A better explanation keeps the reason, and the advice unless there is a better one")
  func explained() {
    let error = StrobeError.system(ENOSPC, call: "write", object: "x")
    let plain = error.explained("target x is full")
    #expect(plain.reason == error.reason)
    #expect(plain.advice == error.advice)
    #expect(plain.message == "target x is full")
    #expect(error.explained("full", advice: "buy a disk").advice == "buy a disk")
  }

  @Test("A cancellation is neither damage nor a system error")
  func cancelled() {
    #expect(StrobeError.cancelled.reason == .cancelled)
    #expect(!StrobeError.cancelled.isDamage)
    #expect(StrobeError.cancelled.errno == 0)
  }
}
