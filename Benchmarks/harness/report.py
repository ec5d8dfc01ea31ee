"""The table of a run: both sides, the ratio, and the budget where there is one."""


class Report:
    def __init__(self, machine, judges):
        """`judges`: whether the run is large enough for the budgets to mean something."""
        self.machine, self.judges, self.rows, self.notes = machine, judges, [], []

    def add(self, row, strobe, other, cost, ratio=None, budget=None, at_least=True):
        """`ratio` is above 1 where Strobe is better, unless `at_least` is false: then it must not exceed."""
        verdict = ""
        if ratio is not None and budget is not None and self.judges:
            holds = ratio >= budget if at_least else ratio <= budget
            verdict = f"{'≥' if at_least else '≤'} {budget:g} {'holds' if holds else 'MISSED'}"
        self.rows.append({
            "row": row, "strobeWall": strobe.wall, "strobeCPU": strobe.cpu, "strobeMemory": strobe.memory,
            "against": other, "otherWall": cost.wall if cost else None, "otherCPU": cost.cpu if cost else None,
            "otherMemory": cost.memory if cost else None, "ratio": ratio, "budget": verdict})
        self.line(self.rows[-1])

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
        head = ["row", "wall s", "CPU s", "MiB", "against", "wall s", "CPU s", "MiB", "ratio", "budget"]
        table = [head] + [self.cells(row) for row in self.rows]
        widths = [max(len(line[column]) for line in table) for column in range(len(head))]
        print("\n" + self.machine + "\n")
        for number, line in enumerate(table):
            print("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |")
            if number == 0:
                print("|" + "|".join("-" * (width + 2) for width in widths) + "|")
        for note in self.notes:
            print(note)

    def document(self):
        return {"machine": self.machine, "rows": self.rows, "notes": self.notes}
