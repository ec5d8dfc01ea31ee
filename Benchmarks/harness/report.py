"""The table of a run: both sides, the ratio, and the budget where there is one."""


class Report:
    def __init__(self, machine, judges):
        """`judges`: whether the run is large enough for the budgets to mean something."""
        self.machine, self.judges, self.rows, self.notes = machine, judges, [], []
        self.tables = {}

    def add(self, row, strobe, other, cost, ratio=None, budget=None, at_least=True):
        """`ratio` is above 1 where Strobe is better, unless `at_least` is false: then it must not exceed."""
        verdict = self.verdict(ratio, budget, at_least)
        self.rows.append({
            "row": row, "strobeWall": strobe.wall, "strobeCPU": strobe.cpu, "strobeMemory": strobe.memory,
            "against": other, "otherWall": cost.wall if cost else None, "otherCPU": cost.cpu if cost else None,
            "otherMemory": cost.memory if cost else None, "ratio": ratio, "budget": verdict})
        self.line(self.rows[-1])

    def verdict(self, ratio, budget, at_least):
        if ratio is None or budget is None or not self.judges:
            return ""
        holds = ratio >= budget if at_least else ratio <= budget
        return f"{'≥' if at_least else '≤'} {budget:g} {'holds' if holds else 'MISSED'}"

    def record(self, table, cells, figures, ratio=None, budget=None, at_least=True):
        """A row of a table of its own: `cells` (column: text) are shown, `figures` are for --json."""
        verdict = self.verdict(ratio, budget, at_least)
        cells = {**cells, "ratio": "" if ratio is None else f"{ratio:.2f}", "budget": verdict}
        self.tables.setdefault(table, []).append((cells, {**figures, "ratio": ratio, "budget": verdict}))
        print("  " + " | ".join(f"{name} {text}" for name, text in cells.items() if text), flush=True)

    def note(self, text):
        self.notes.append(text)
        print("  " + text, flush=True)

    @staticmethod
    def seconds(value):
        return "" if value is None else f"{value:.2f}"

    @staticmethod
    def mebibytes(value):
        return "" if not value else f"{value / (1 << 20):.0f}"

    def cells(self, row):
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
        return [row["row"], self.seconds(row["strobeWall"]), self.seconds(row["strobeCPU"]),
                self.mebibytes(row["strobeMemory"]), row["against"], self.seconds(row["otherWall"]),
                self.seconds(row["otherCPU"]), self.mebibytes(row["otherMemory"]), ratio, row["budget"]]

    def line(self, row):
        print("  " + " | ".join(cell for cell in self.cells(row) if cell), flush=True)

    def show(self):
        print("\n" + self.machine)
        if self.rows:
            head = ["row", "wall s", "CPU s", "MiB", "against", "wall s", "CPU s", "MiB", "ratio", "budget"]
            show_table([head] + [self.cells(row) for row in self.rows])
        for title, rows in self.tables.items():
            print(f"\n{title}")
            show_table([list(rows[0][0])] + [list(cells.values()) for cells, _ in rows])
        for note in self.notes:
            print(note)

    def document(self):
        tables = {title: [figures for _, figures in rows] for title, rows in self.tables.items()}
        return {"machine": self.machine, "rows": self.rows, "tables": tables, "notes": self.notes}


def show_table(table):
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    print()
    for number, line in enumerate(table):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |")
        if number == 0:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")
