"""What Linux tells and gives: cgroups, processor time, traces, mount namespaces; and how all is taken away again."""
