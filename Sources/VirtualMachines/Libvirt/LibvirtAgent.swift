import Glibc
package import Platform

/// Freezes the file systems of a domain through libvirt and the guest's agent.
///
/// For whoever knows nothing but the connection and the domain, such as a process that thaws what another one has
/// frozen.
package struct LibvirtAgent {
  private let domain: LibvirtHandle
  private let name: String

  /// Whether a running domain's agent is there. See https://libvirt.org/formatdomain.html#channel.
  package static func isConnected(in domain: XMLElement) -> Bool {
    let channels = domain.child("devices")?.all("channel") ?? []
    return channels.contains { channel in
      let target = channel.child("target")
      return target?["name"] == "org.qemu.guest_agent.0" && target?["state"] == "connected"
    }
  }

  /// - Throws: `notFound` when there is no such domain. Not when nobody answers for libvirt: the domain may well run
  ///   then, and be frozen.
  package init(connecting uri: String, domain: String) throws(StrobeError) {
    self.domain = try LibvirtHandle(try Self.connection(uri), domain: domain)
    name = domain
  }

  private static func connection(_ uri: String) throws(StrobeError) -> LibvirtConnection {
    do throws(StrobeError) {
      return try LibvirtConnection(uri)
    } catch {
      guard error.reason == .notFound else { throw error }
      throw StrobeError(
        .system(errno: ECONNREFUSED, call: "virConnectOpen", object: uri), error.message,
        advice: error.advice)
    }
  }

  /// Finds out whether the agent answers: a freeze that it never answers would have to be taken for one.
  ///
  /// - Throws: when it doesn't, or the domain is off.
  package func ask(seconds: Int) throws(StrobeError) {
    try about("domain \(name)") { () throws(LibvirtError) in
      try domain.askAgent(seconds: seconds)
    }
  }

  /// - Parameter seconds: what the agent has for each of its answers; the freeze may have worked although
  ///   none came.
  /// - Returns: how many file systems are frozen.
  package func freeze(seconds: Int) throws(StrobeError) -> Int {
    try about("domain \(name)") { () throws(LibvirtError) in try domain.freeze(seconds: seconds) }
  }

  /// - Returns: how many file systems were thawed; 0 when none was frozen.
  /// - Throws: `notFound` when the domain is off: then nothing is frozen.
  package func thaw(seconds: Int) throws(StrobeError) -> Int {
    do throws(StrobeError) {
      return try about("domain \(name)") { () throws(LibvirtError) in
        try domain.thaw(seconds: seconds)
      }
    } catch {
      let isOff = try about("domain \(name)") { () throws(LibvirtError) in
        try domain.state() == .off
      }
      throw isOff ? StrobeError(.notFound, "domain \(name) is off") : error
    }
  }
}
