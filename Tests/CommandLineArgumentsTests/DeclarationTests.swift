import CommandLineArguments
import Testing

@Suite("Contradicting declarations stop the program")
struct DeclarationTests {
  @Test("Two options of one name")
  func duplicateOption() async {
    await #expect(processExitsWith: .failure) {
      declare(options: [Flag("all", help: ""), Option("all", value: "X", help: "")])
    }
    await #expect(processExitsWith: .failure) {
      declare(options: [Flag("all", short: "a", help: ""), Flag("any", short: "a", help: "")])
    }
    await #expect(processExitsWith: .failure) { declare(options: [Flag("help", help: "")]) }
  }

  @Test("A name that can't be typed, or an empty default")
  func badNames() async {
    await #expect(processExitsWith: .failure) { declare(options: [Flag("--all", help: "")]) }
    await #expect(processExitsWith: .failure) { declare(options: [Flag("a", help: "")]) }
    await #expect(processExitsWith: .failure) {
      declare(options: [Flag("all", short: "-", help: "")])
    }
    await #expect(processExitsWith: .failure) {
      declare(options: [Option("size", value: "SIZE", default: "", help: "")])
    }
  }

  @Test("An argument that can never be reached")
  func argumentOrder() async {
    await #expect(processExitsWith: .failure) {
      declare(arguments: [OptionalArgument("A", help: ""), Argument("B", help: "")])
    }
    await #expect(processExitsWith: .failure) {
      declare(arguments: [RepeatedArgument("A", help: ""), OptionalArgument("B", help: "")])
    }
    await #expect(processExitsWith: .failure) {
      declare(arguments: [Argument("A", help: ""), Argument("A", help: "")])
    }
  }

  @Test("Two commands of one name")
  func duplicateCommand() async {
    await #expect(processExitsWith: .failure) { declare(command: "help") }
  }

  @Test("Reading what the command doesn't declare")
  func undeclaredAccess() async {
    await #expect(processExitsWith: .failure) {
      _ = try Sample.values("list")[Sample.disk]
    }
    await #expect(processExitsWith: .failure) {
      _ = try Sample.values("list")[Sample.points]
    }
  }

  @Test("Consistent declarations don't")
  func consistent() async {
    await #expect(processExitsWith: .success) {
      declare(
        arguments: [
          Argument("A", help: ""), OptionalArgument("B", help: ""),
          RepeatedArgument("C", atLeast: 0, help: ""),
        ],
        options: [Flag("all", short: "a", help: "")])
      declare(
        arguments: [Argument("A", help: ""), RepeatedArgument("B", atLeast: 2, help: "")])
    }
  }
}

private func declare(
  command: String = "run", arguments: [any ArgumentDeclaration] = [],
  options: [any OptionDeclaration] = []
) {
  let command = CommandDeclaration(
    name: command, summary: "", arguments: arguments, options: options)
  _ = ProgramDeclaration(name: "p", summary: "", version: "1", commands: [command])
}
