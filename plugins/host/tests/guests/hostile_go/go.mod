module hostile_go

go 1.24

require towpath v0.0.0

replace towpath => ../../../../sdk/go
