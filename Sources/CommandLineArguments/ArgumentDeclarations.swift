/// A declared positional argument of any kind: an ``Argument``, an ``OptionalArgument`` or a
/// ``RepeatedArgument``.
package protocol ArgumentDeclaration: Sendable {
  var definition: ArgumentDefinition { get }
}

/// A positional argument that has to be there: `COLLECTION`.
package struct Argument: ArgumentDeclaration {
  package let definition: ArgumentDefinition

  package init(_ name: String, help: String) {
    definition = ArgumentDefinition(name: name, minimumCount: 1, isRepeating: false, help: help)
  }
}

/// A positional argument that may be left out: `[COLLECTION]`.
package struct OptionalArgument: ArgumentDeclaration {
  package let definition: ArgumentDefinition

  package init(_ name: String, help: String) {
    definition = ArgumentDefinition(name: name, minimumCount: 0, isRepeating: false, help: help)
  }
}

/// The last positional argument, as many of them as there are: `POINT...`.
package struct RepeatedArgument: ArgumentDeclaration {
  package let definition: ArgumentDefinition

  /// - Parameter minimumCount: how many there have to be at least.
  package init(_ name: String, atLeast minimumCount: Int = 1, help: String) {
    definition = ArgumentDefinition(
      name: name, minimumCount: minimumCount, isRepeating: true, help: help)
  }
}

/// What the parser and the help page know about a positional argument of any kind.
package struct ArgumentDefinition: Sendable, Equatable {
  let name: String
  let minimumCount: Int
  let isRepeating: Bool
  let help: String

  /// How the argument stands in a usage line: `NAME`, `[NAME]`, `NAME...` or `[NAME...]`.
  var usage: String {
    let repeated = isRepeating ? "\(name)..." : name
    return minimumCount == 0 ? "[\(repeated)]" : repeated
  }
}
