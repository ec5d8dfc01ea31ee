/// This program's version.
public let strobeVersion = "0.1.0"
