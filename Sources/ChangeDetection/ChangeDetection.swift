// ChangeDetection
