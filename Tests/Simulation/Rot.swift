import Engine
import Platform

/// What was done to objects of the repository behind its back, and which errors that explains.
struct Rot {
  struct Wound {
    /// The whole object as it was.
    let original: [UInt8]
    /// Whether it may be put back: not when something was built on its absence.
    var isReversible = true
  }

  /// By the object's path in the repository.
  private(set) var wounds: [String: Wound] = [:]
  /// What was put right since the command began; an operation beside it may have seen it before.
  private var former: Set<String> = []

  var isEmpty: Bool { wounds.isEmpty }
  var objects: [String] { wounds.keys.sorted() }
  var reversible: [String] { wounds.filter { $0.value.isReversible }.keys.sorted() }

  mutating func add(_ object: String, original: [UInt8]) {
    if wounds[object] == nil { wounds[object] = Wound(original: original) }
  }

  /// - Returns: the object's bytes before the rot.
  mutating func forget(_ object: String) -> [UInt8]? {
    if wounds[object] != nil { former.insert(object) }
    return wounds.removeValue(forKey: object)?.original
  }

  mutating func forgetFormer() { former = [] }

  mutating func makeIrreversible(_ matches: (String) -> Bool) {
    for object in wounds.keys where matches(object) { wounds[object]?.isReversible = false }
  }

  func contains(_ object: String) -> Bool { wounds[object] != nil }

  /// Whether the error is one that the rot explains: damage or absence of an object that rotted, by name.
  func explains(_ failure: Failure) -> Bool {
    guard ["damaged", "notFound", "newerVersion"].contains(failure.kind) else { return false }
    return objects.contains { Self.isNamed($0, in: failure.text) }
      || former.contains { Self.isNamed($0, in: failure.text) }
  }

  /// Whether a text names an object.
  static func isNamed(_ object: String, in text: String) -> Bool {
    if text.contains(object) { return true }
    if object == "config.json" { return text.contains("has no config.json") }
    // A document is also meant by the id of its point.
    guard let id = pointID(of: object) else { return false }
    return text.contains("no restore point \(id)")
  }

  /// The id of the point whose document an object is.
  static func pointID(of object: String) -> String? {
    guard object.hasPrefix("collections/"), object.hasSuffix(".json"),
      !object.hasSuffix("/collection.json"), let slash = object.lastIndex(of: "/")
    else { return nil }
    let id = String(object[object.index(after: slash)...].dropLast(5))
    return id.count == 24 ? id : nil
  }
}

extension World {
  /// The path of a point's document in the repository.
  func document(_ collection: CollectionModel, _ id: String) -> String {
    "collections/\(collection.name)/\(id).json"
  }

  func isDocumentRotten(_ collection: CollectionModel, _ id: String) -> Bool {
    rot.contains(document(collection, id))
  }
}
