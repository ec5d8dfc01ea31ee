import Glibc
package import Platform

extension FreezeSession {
  /// How long is waited for an answer that the guardian's own limits make certain.
  private static let patienceMilliseconds = 60_000

  /// Thaws all, last frozen first. May be called again, and after `abandon()`.
  ///
  /// - Throws: when something may still be frozen: says what, and what to do.
  package func thaw() throws(StrobeError) -> FreezeWindow {
    requestThaw()
    let patience = Clock.after(milliseconds: Self.patienceMilliseconds)
    let final = link.state.wait(until: patience) { state in
      state.window != nil || state.isEnded ? state : nil
    }
    guard let final else {
      throw StrobeError(
        .system(errno: ETIMEDOUT, call: "FITHAW", object: "file systems"),
        "the thaw of \(places.map(\.fileSystem.mountPoint).joined(separator: ", ")) does not return",
        advice: "look for the device that hangs (dmesg); later: strobe thaw")
    }
    removeRecords(final)
    try checkThawed(final)
    let broken = brokenBy(final)
    return FreezeWindow(
      milliseconds: Double(final.window ?? Clock.now() - (final.begin ?? Clock.now())) / 1e6,
      isHeld: broken == nil, brokenBy: broken)
  }

  /// Why the freeze doesn't hold, when that is known already.
  package var lossReason: String? { brokenBy(link.state.update { $0 }) }

  /// Thaws and doesn't ask how it went. May be called again.
  package func abandon() { _ = try? thaw() }

  private func requestThaw() {
    let isFirst = link.state.update { state in
      if state.thawRequest != nil || state.isEnded { return false }
      state.thawRequest = Clock.now()
      return true
    }
    if isFirst { link.send(GuardianMessage(.thaw)) }
  }

  private func removeRecords(_ state: GuardianLink.State) {
    for (index, place) in places.enumerated() {
      switch state.thaws[index] {
      case 0, EINVAL: place.record.remove()
      case GuardianMessage.neverFrozen: if !place.record.isStale { place.record.remove() }
      default: break
      }
    }
  }

  private func checkThawed(_ state: GuardianLink.State) throws(StrobeError) {
    for (index, place) in places.enumerated() {
      let code = state.thaws[index] ?? GuardianMessage.stillPending
      if code == 0 || code == EINVAL || code == GuardianMessage.neverFrozen { continue }
      let mountPoint = place.fileSystem.mountPoint
      let why = code == GuardianMessage.stillPending ? "does not return" : errorText(code)
      throw StrobeError(
        .system(errno: max(code, 0), call: "FITHAW", object: mountPoint),
        "\(mountPoint) may still be frozen: FITHAW: \(why)",
        advice: "look for what is wrong with its device (dmesg), then: strobe thaw \(mountPoint)")
    }
  }

  private func brokenBy(_ state: GuardianLink.State) -> String? {
    if state.hasDeadlineStruck {
      return "the freeze lasted longer than \(options.maxFreezeMilliseconds) ms and was ended"
    }
    if state.guardianDied { return "the guardian process ended" }
    for (index, place) in places.enumerated() where state.thaws[index] == EINVAL {
      return "somebody else thawed \(place.fileSystem.mountPoint)"
    }
    return nil
  }

  func lostError() -> StrobeError {
    let state = link.state.update { $0 }
    let why = brokenBy(state) ?? "the freeze was given up"
    return StrobeError(
      .system(
        errno: state.hasDeadlineStruck ? ETIMEDOUT : ECHILD, call: "FIFREEZE",
        object: "file systems"),
      "\(why); everything is thawed",
      advice: state.hasDeadlineStruck
        ? "freeze when less is written, or allow more time" : "run it again")
  }
}
