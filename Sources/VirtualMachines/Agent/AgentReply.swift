/// What a line from a guest agent says. The guest is not trusted: whatever else it sends is no reply.
package enum AgentReply: Sendable, Equatable {
  case returned(JSONValue)
  /// `CommandNotFound`, `GenericError`, …, and the agent's words.
  case failed(kind: String, text: String)

  /// Brackets: no reply of a command that is used has more than three.
  private static let bracketLimit = 16

  /// - Parameter line: without its end; only what follows the last delimiter (0xff) counts.
  /// - Returns: nil when it is no reply.
  package init?(line: some BidirectionalCollection<UInt8>) {
    let text = line.lastIndex(of: 0xff).map { line[line.index(after: $0)...] } ?? line[...]
    guard let value = JSONValue(decoding: text, bracketLimit: Self.bracketLimit) else { return nil }
    if let returned = value["return"] {
      self = .returned(returned)
    } else if let kind = value["error"]?["class"]?.text {
      self = .failed(kind: kind, text: value["error"]?["desc"]?.text ?? kind)
    } else {
      return nil
    }
  }
}
