module towpath

go 1.24
