import CommandLineArguments
import Platform

/// Numbers as people read them.
enum Units {
  /// `0 B`, `64 KiB`, `5.5 GiB`: binary units, three digits at most.
  static func size(_ bytes: Int) -> String {
    var value = Double(bytes)
    var unit = 0
    let names = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]
    while value >= 1023.5 && unit < names.count - 1 {
      value /= 1024
      unit += 1
    }
    return number(value, digits: unit == 0 || value >= 99.95 || value == value.rounded() ? 0 : 1)
      + " " + names[unit]
  }

  static func number(_ value: Double, digits: Int) -> String {
    let scale = digits == 0 ? 1.0 : (digits == 1 ? 10 : 100)
    let whole = Int((value * scale).rounded())
    guard digits > 0 else { return String(whole) }
    let rest = String(abs(whole) % Int(scale))
    return String(whole / Int(scale)) + "." + String(repeating: "0", count: digits - rest.count)
      + rest
  }

  /// `0.42 s`, `12 s`, `3 min 20 s`, `2 h 5 min`.
  static func duration(_ seconds: Double) -> String {
    if seconds < 10 { return number(seconds, digits: 2) + " s" }
    let whole = Int(seconds.rounded())
    if whole < 120 { return "\(whole) s" }
    if whole < 7200 { return "\(whole / 60) min \(whole % 60) s" }
    return "\(whole / 3600) h \(whole / 60 % 60) min"
  }

  static func rate(_ bytes: Int, _ seconds: Double) -> String {
    size(Int(Double(bytes) / max(seconds, 0.000_001))) + "/s"
  }

  /// A share from 0 to 1, written `5%` or `0.05`.
  static func share(_ text: String, option: String) throws -> Double {
    let isPercent = text.hasSuffix("%")
    guard let number = Double(isPercent ? text.dropLast() : text[...]),
      (0...(isPercent ? 100 : 1)).contains(number)
    else {
      throw UsageError("\(option): '\(text)' is no share", advice: "write it like 5% or 0.05")
    }
    return isPercent ? number / 100 : number
  }

  /// `1 layer`, `3 layers`.
  static func count(_ count: Int, _ noun: String) -> String {
    "\(count) \(noun)\(count == 1 ? "" : "s")"
  }
}

/// Columns of text, as wide as their widest cell.
struct Table {
  private let titles: [String]
  private let rightAligned: Set<Int>
  private var rows: [[String]] = []

  init(_ titles: [String], rightAligned: Set<Int> = []) {
    self.titles = titles
    self.rightAligned = rightAligned
  }

  mutating func add(_ cells: [String]) {
    precondition(cells.count == titles.count)
    rows.append(cells)
  }

  func print() {
    let widths = titles.indices.map { column in
      max(titles[column].count, rows.reduce(0) { max($0, $1[column].count) })
    }
    Console.print(line(titles, widths))
    for row in rows { Console.print(line(row, widths)) }
  }

  private func line(_ cells: [String], _ widths: [Int]) -> String {
    var text = ""
    for (column, cell) in cells.enumerated() {
      let blanks = String(repeating: " ", count: widths[column] - cell.count)
      if column > 0 { text += "  " }
      if rightAligned.contains(column) {
        text += blanks + cell
      } else {
        text += column == cells.count - 1 ? cell : cell + blanks
      }
    }
    while text.last == " " { text.removeLast() }
    return text
  }
}
