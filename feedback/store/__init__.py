"""The only code that opens a session: one module per noun, with the verbs save_, get_, list_ and count_.

Every function takes the open ``Database`` first, does one short transaction and gives detached rows back.
Lists and counts never read bodies they do not show.
"""
