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
        .system(errno: ETIMEDOUT, call: "thaw", object: "all that is frozen"),
        "the thaw of \(places.map(\.target.title).joined(separator: ", ")) does not return",
        advice: "look for the device or guest that hangs; later: strobe thaw")
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
      throw notThawed(place, code)
    }
  }

  private func notThawed(_ place: FreezePlace, _ code: Int32) -> StrobeError {
    let isPending = code == GuardianMessage.stillPending
    let name = place.target.name
    switch place.kind {
    case .mount:
      let why = isPending ? "does not return" : errorText(code)
      return StrobeError(
        .system(errno: max(code, 0), call: "FITHAW", object: name),
        "\(name) may still be frozen: FITHAW: \(why)",
        advice: "look for what is wrong with its device (dmesg), then: strobe thaw \(name)")
    case .agent, .domain, .processors:
      let isAgent = if case .processors = place.kind { false } else { true }
      let who = isAgent ? "its agent" : "its monitor"
      let why =
        switch code {
        case GuardianMessage.stillPending, ETIMEDOUT: "\(who) does not answer"
        case ENOTSUP: "\(who) knows no thaw"
        default: "\(who): \(errorText(code))"
        }
      return StrobeError(
        .system(errno: max(code, 0), call: "thaw", object: name),
        "the guest of \(name) may still be \(isAgent ? "frozen" : "stopped"): \(why)",
        advice: "see whether the guest hangs, then: strobe thaw \(name)")
    }
  }

  private func brokenBy(_ state: GuardianLink.State) -> String? {
    if state.hasDeadlineStruck {
      return "the freeze lasted longer than \(options.maxFreezeMilliseconds) ms and was ended"
    }
    if state.guardianDied { return "the guardian process ended" }
    for (index, place) in places.enumerated() where state.thaws[index] == EINVAL {
      switch place.kind {
      case .mount: return "somebody else thawed \(place.target.name)"
      case .agent, .domain:
        return "\(place.target.title) was thawed before, by somebody else or by its own limit"
      case .processors: return "\(place.target.title) was resumed or ended by somebody else"
      }
    }
    return nil
  }

  func lostError() -> StrobeError {
    let state = link.state.update { $0 }
    let why = brokenBy(state) ?? "the freeze was given up"
    return StrobeError(
      .system(
        errno: state.hasDeadlineStruck ? ETIMEDOUT : ECHILD, call: "freeze",
        object: "all that is to be frozen"),
      "\(why); everything is thawed",
      advice: state.hasDeadlineStruck
        ? "freeze when less is written, or allow more time" : "run it again")
  }
}
