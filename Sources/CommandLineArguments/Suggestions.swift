/// The candidates that a mistyped name most likely stands for, at most three, in their order.
///
/// Near is a candidate that begins with what was typed, or that can be reached by changing about a
/// third of its letters; of those, the nearest.
func nearest(to typed: String, among candidates: [String]) -> [String] {
  let longestName = 40
  guard !typed.isEmpty, typed.count <= longestName else { return [] }
  let lowercased = typed.lowercased()
  let distances = candidates.map { candidate in
    let isBeginning = typed.count > 1 && candidate.hasPrefix(lowercased)
    return isBeginning ? 1 : editDistance(lowercased, candidate)
  }
  guard let least = distances.min() else { return [] }
  let near = zip(candidates, distances).filter { candidate, distance in
    distance == least && distance <= max(1, candidate.count / 3)
  }
  return near.prefix(3).map(\.0)
}

/// The number of letters to insert, delete, replace or swap with their neighbour that leads from
/// one word to the other (optimal string alignment).
///
/// - Complexity: O(n·m) time and memory.
func editDistance(_ first: String, _ second: String) -> Int {
  let from = Array(first)
  let to = Array(second)
  // rows[i][j] is the distance between the first i letters and the first j letters.
  var rows = [Array(0...to.count)]
  for (i, letter) in from.enumerated() {
    var row = [i + 1]
    for (j, other) in to.enumerated() {
      var best = min(rows[i][j + 1] + 1, row[j] + 1, rows[i][j] + (letter == other ? 0 : 1))
      if i > 0, j > 0, letter == to[j - 1], from[i - 1] == other {
        best = min(best, rows[i - 1][j - 1] + 1)
      }
      row.append(best)
    }
    rows.append(row)
  }
  return rows[from.count][to.count]
}
