"""What the doctor looks at, a room for each kind of fact; none of them changes anything, and none guesses."""
