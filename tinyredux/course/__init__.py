"""The course: exercises with drawn cases, labs to hand out and grade, the claims map, the rendered book."""

__all__ = ["book", "claims", "exercises", "exercises_partial", "given", "handout", "judge", "labs", "teaching"]
