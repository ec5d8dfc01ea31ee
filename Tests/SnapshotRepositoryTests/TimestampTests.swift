import Platform
import SnapshotRepository
import TestSupport
import Testing

@Suite("A timestamp")
struct TimestampTests {
  @Test(
    "is read as what it says",
    arguments: [
      ("1970-01-01T00:00:00Z", 0), ("1970-01-01", 0), ("1970-01-01T00:00:00.250Z", 250_000_000),
      ("1970-01-01T00:00:00.000000001Z", 1), ("1970-01-01T00:00:00.1234567899Z", 123_456_789),
      ("1969-12-31T23:59:59.999Z", -1_000_000), ("2026-11-21T08:15:30Z", 1_795_248_930_000_000_000),
      ("2026-11-21 08:15:30", 1_795_248_930_000_000_000),
      ("2026-11-21t08:15:30z", 1_795_248_930_000_000_000),
      ("2026-11-21T10:15:30+02:00", 1_795_248_930_000_000_000),
      ("2026-11-21T10:15:30+0200", 1_795_248_930_000_000_000),
      ("2026-11-21T10:15:30+02", 1_795_248_930_000_000_000),
      ("2026-11-21T02:45:30-05:30", 1_795_248_930_000_000_000),
      ("2026-11-21T08", 1_795_248_000_000_000_000), ("2026-11-21T08:15", 1_795_248_900_000_000_000),
      ("2000-02-29T00:00:00Z", 951_782_400_000_000_000), ("2024-02-29", 1_709_164_800_000_000_000),
      ("2016-12-31T23:59:60Z", 1_483_228_800_000_000_000),
      ("2262-04-11", 9_223_286_400_000_000_000),
      ("1678-01-01", -9_214_560_000_000_000_000),
    ])
  func reads(_ text: String, _ nanoseconds: Int) {
    #expect(Timestamp(text)?.nanoseconds == nanoseconds)
  }

  @Test(
    "isn't read from anything else",
    arguments: [
      "", "now", "2026", "2026-11", "2026-1-1", "2026-13-01", "2026-00-10", "2026-02-30",
      "2023-02-29", "1900-02-29",
      "2026-04-31", "2026-11-21T24:00:00Z", "2026-11-21T08:60:00Z", "2026-11-21T08:15:61Z",
      "2026-11-21T08:15:30.Z",
      "2026-11-21T", "2026-11-21Z", "2026-11-21T08:15:30+", "2026-11-21T08:15:30+2",
      "2026-11-21T08:15:30+24:00",
      "2026-11-21T08:15:30+02:60", "2026-11-21T08:15:30+02:", "2026-11-21T08:15:30ZZ",
      "2026-11-21T08:15:30Z ",
      " 2026-11-21", "２０２６-11-21", "+026-11-21", "-026-11-21", "2026-11-21T08:15:30,5Z", "20261121",
      "9999-12-31",
      "0000-01-01", "0001-01-01", "2262-04-12", "1677-01-01",
    ])
  func refuses(_ text: String) { #expect(Timestamp(text) == nil) }

  @Test(
    "is written in UTC with milliseconds",
    arguments: [
      (0, "1970-01-01T00:00:00.000Z"), (1, "1970-01-01T00:00:00.000Z"),
      (-1_000_000, "1969-12-31T23:59:59.999Z"),
      (-1, "1969-12-31T23:59:59.999Z"), (1_795_248_930_250_000_000, "2026-11-21T08:15:30.250Z"),
      (951_782_400_000_000_000, "2000-02-29T00:00:00.000Z"), (Int.max, "2262-04-11T23:47:16.854Z"),
      (Int.min, "1677-09-21T00:12:43.145Z"),
    ])
  func writes(_ nanoseconds: Int, _ text: String) {
    #expect(Timestamp(nanoseconds: nanoseconds).description == text)
  }

  @Test("of any day and millisecond reads back as it was written")
  func roundTrip() {
    var random = SeededGenerator(seed: 11)
    for _ in 0..<20_000 {
      let milliseconds = Int.random(in: -9_214_000_000_000...9_223_000_000_000, using: &random)
      let time = Timestamp(nanoseconds: milliseconds * 1_000_000)
      #expect(Timestamp(time.description) == time)
    }
    for day in -30_000..<80_000 {
      let time = Timestamp(nanoseconds: day * 86_400_000_000_000)
      guard Timestamp(time.description) != time else { continue }
      Issue.record("day \(day) reads back as another")
    }
  }

  @Test("orders by time, and now reads back equal")
  func order() throws {
    let now = Timestamp.now
    #expect(try #require(Timestamp(now.description)) == now)
    #expect(Timestamp(nanoseconds: 1) < Timestamp(nanoseconds: 2))
  }
}
