"""What every room stands on: errors, files, tables of names, numbers. It knows no model."""
