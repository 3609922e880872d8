"""The Horovod installer, one idea per file.

recipe        which release, what is changed in its source and why, with which options it is built
environment   the Python environment it is for; the version label that names a build
preflight     everything that is missing, told before anything starts
processes     child processes that end in time and never outlive us
progress      what the terminal shows meanwhile
cache         finished wheels, kept whole or not at all
build         source in, wheel out
verify        two ranks add two numbers with a wheel that is not installed yet
install       all of Horovod goes in, or everything stays as it was
cli           the order of the above
"""
