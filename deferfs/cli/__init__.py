"""The command line: one module per command. `main` finds and runs them; `outcome` turns errors into exit codes."""
