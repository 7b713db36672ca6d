"""What Arrow computes of a column, a file for each kind of value.

Each file has a table `FUNCTIONS`: by the function's name in `operators.expression`, what takes
the values of the arguments (arrays, or scalars where a value is the same in every row) and the
call, and returns an array.
"""
