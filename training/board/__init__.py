"""The board of policies: how strong each is by the votes that compared them."""
