import VirtualMachines

/// What may stand where a disk is named.
public enum DiskPath {
  /// The formats of image files: `FORMAT:PATH`.
  public static var formats: [String] { ImageFormat.allCases.map(\.rawValue) }

  /// Whether it is nothing but a path: no format before it, no URI.
  public static func isPlain(_ text: String) -> Bool {
    if case .local = DiskLocator(text) { return !text.hasPrefix("raw:") }
    return false
  }
}
