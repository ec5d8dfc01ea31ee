import Platform

/// What the guardian has to know: the first message, sent before it starts.
///
/// Strings that end with a zero byte each: version, number of places, deadline in milliseconds; of each place the
/// path of its record, whether that is an old one, and what it is (``HoldKind``); and of a `post-thaw` hook the
/// program, its limits and environment. The descriptors are inherited: 3 the socket, from 4 on those of the places
/// (mount points, connections to guests), after them the records.
struct GuardianConfiguration: Equatable {
  static let version = "2"
  /// A datagram that the socket's buffer takes in any case (net.core.wmem_default is 212,992 bytes).
  static let maximumSize = 128 << 10
  static let socket: Int32 = 3
  static let firstPlace: Int32 = 4

  struct Place: Equatable {
    let recordPath: String
    /// Whether an earlier session left the record: then it stays unless this one froze and thawed.
    let isStale: Bool
    let kind: HoldKind
  }

  private static let placeFieldCount = 2 + HoldKind.fieldCount

  let places: [Place]
  let maxFreezeMilliseconds: Int
  let postThaw: HookCommand?

  init(places: [Place], maxFreezeMilliseconds: Int, postThaw: HookCommand?) {
    self.places = places
    self.maxFreezeMilliseconds = maxFreezeMilliseconds
    self.postThaw = postThaw
  }

  /// How many descriptors are inherited, standard streams included.
  static func descriptorCount(places: Int) -> Int { 4 + 2 * places }
  func record(_ index: Int) -> Int32 { Self.firstPlace + Int32(places.count + index) }
  static func place(_ index: Int) -> Int32 { firstPlace + Int32(index) }

  func encoded() throws(StrobeError) -> [UInt8] {
    var fields = [Self.version, "\(places.count)", "\(maxFreezeMilliseconds)"]
    for place in places {
      fields += [place.recordPath, place.isStale ? "stale" : "new"] + place.kind.fields
    }
    if let postThaw {
      fields += [postThaw.program, "\(postThaw.limitMilliseconds)", "\(postThaw.retries)"]
      for (name, value) in postThaw.environment.sorted(by: { $0.key < $1.key }) {
        fields.append("\(name)=\(value)")
      }
    }
    var bytes: [UInt8] = []
    for field in fields {
      guard !field.utf8.contains(0) else {
        throw StrobeError(.usage, "a path or an environment entry contains a zero byte")
      }
      bytes += Array(field.utf8) + [0]
    }
    guard bytes.count <= Self.maximumSize else {
      throw StrobeError(
        .usage, "the environment of the post-thaw hook has more than \(Self.maximumSize) bytes")
    }
    return bytes
  }

  /// - Returns: nil when it is no configuration of this version.
  init?(decoding bytes: [UInt8]) {
    var fields = bytes.split(separator: 0, omittingEmptySubsequences: false).dropLast().map {
      String(decoding: $0, as: UTF8.self)
    }[...]
    guard fields.popFirst() == Self.version, let count = fields.popFirst().flatMap({ Int($0) }),
      let limit = fields.popFirst().flatMap({ Int($0) }), count >= 0,
      count <= fields.count / Self.placeFieldCount
    else { return nil }
    var places: [Place] = []
    for _ in 0..<count {
      let (path, state) = (fields.removeFirst(), fields.removeFirst())
      guard let kind = HoldKind(fields: fields.prefix(HoldKind.fieldCount)) else { return nil }
      fields.removeFirst(HoldKind.fieldCount)
      places.append(Place(recordPath: path, isStale: state == "stale", kind: kind))
    }
    self.places = places
    maxFreezeMilliseconds = limit
    guard let program = fields.popFirst() else {
      postThaw = nil
      return
    }
    guard let hookLimit = fields.popFirst().flatMap({ Int($0) }),
      let retries = fields.popFirst().flatMap({ Int($0) })
    else { return nil }
    var environment: [String: String] = [:]
    for field in fields {
      // By bytes: as characters, an accent that begins the value would be part of the equals sign.
      guard let equals = field.utf8.firstIndex(of: UInt8(ascii: "=")) else { continue }
      environment[String(field[..<equals])] = String(field[field.utf8.index(after: equals)...])
    }
    postThaw = HookCommand(
      program: program, environment: environment, limitMilliseconds: hookLimit, retries: retries)
  }
}
