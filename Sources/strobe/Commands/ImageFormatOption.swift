import CommandLineArguments
import Engine

/// `--format`: what the paths of `--disk` are that don't say it themselves.
enum ImageFormatOption {
  static func parse(_ values: ParsedValues, _ option: Option) throws -> String? {
    guard let word = values[option] else { return nil }
    guard DiskPath.formats.contains(word) else {
      throw UsageError(
        "--\(option.definition.name) '\(word)' is none of \(DiskPath.formats.joined(separator: ", "))",
        advice: "name one of these")
    }
    return word
  }

  /// - Returns: the path with the format before it, unless it says where it is already.
  static func apply(_ format: String?, to path: String) -> String {
    guard let format, DiskPath.isPlain(path) else { return path }
    return "\(format):\(path)"
  }
}
