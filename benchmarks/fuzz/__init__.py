"""Mutated images through the reader: does anything crash, hang, or show what is not there?"""
