/// A program that prepares an application for the freeze, or wakes it up again.
package struct HookCommand: Sendable, Equatable {
  /// Absolute path.
  package let program: String
  /// All of its environment, but for PATH.
  package let environment: [String: String]
  /// For all attempts together.
  package let limitMilliseconds: Int
  /// How often it is started again when it ends with another status than 0.
  package let retries: Int

  package init(
    program: String, environment: [String: String], limitMilliseconds: Int = 30_000,
    retries: Int = 0
  ) {
    self.program = program
    self.environment = environment
    self.limitMilliseconds = limitMilliseconds
    self.retries = retries
  }
}
